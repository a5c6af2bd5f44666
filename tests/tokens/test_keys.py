"""A JWKS gives the keys that may verify, and puts every other member aside with its reason."""

import contextlib
import json
import math
import pickle
from typing import Any

import pytest
from countersign.tokens.keys import MAX_CANDIDATES, MAX_KEYS, MAX_TEXT, KeySet, KeySetError
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import RSAAlgorithm

from tests.tokens.material import ALGORITHMS, encode, json_test_suite, jwk, key_set, vectors

GOOD = "ES256-0"


def put_aside(member: Any) -> str:
    """Why the member is put aside, between two keys that must stay usable."""
    keys = key_set(jwk("ES256"), member, jwk("EdDSA"))

    assert [key.kid for key in keys.keys] == [GOOD, "EdDSA-0"]
    assert len(keys.rejected) == 1
    assert keys.rejected[0].index == 1
    return keys.rejected[0].why


def number(value: int) -> str:
    return encode(value.to_bytes((value.bit_length() + 7) // 8))


def rsa_jwk(**members: Any) -> dict[str, Any]:
    return jwk("RS256", **{"kid": "rsa", "alg": None, **members})


def modulus() -> int:
    public = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
    return public.public_numbers().n


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_takes_a_key_of_each_algorithm(algorithm: str) -> None:
    (key,) = key_set(jwk(algorithm)).keys

    assert (key.kid, set(key.algorithms)) == (f"{algorithm}-0", {algorithm})


def test_a_key_set_is_the_same_in_another_process() -> None:
    keys = key_set(*map(jwk, ALGORITHMS), {"kty": "oct"})
    there = pickle.loads(pickle.dumps(keys))  # noqa: S301 (our own)

    assert there == keys
    assert [key.public for key in there.keys] == [key.public for key in keys.keys]


def test_a_key_without_an_algorithm_takes_those_of_its_type_and_curve() -> None:
    for name, algorithms in {
        "RS256": {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"},
        "ES256": {"ES256"},
        "ES384": {"ES384"},
        "ES512": {"ES512"},
        "EdDSA": {"EdDSA"},
    }.items():
        (key,) = key_set(jwk(name, alg=None)).keys
        assert key.algorithms == algorithms


@pytest.mark.parametrize(
    ("member", "why"),
    [
        (None, "not an object"),
        ("x", "not an object"),
        ([], "not an object"),
        ({}, "`kty`"),
        ({"kty": 5}, "`kty`"),
        ({"kty": ["RSA"]}, "`kty`"),
        ({"kty": "XXX"}, "`kty`"),
        ({"kty": "AKP", "alg": "ML-DSA-44", "pub": "AAAA"}, "`kty`"),
        ({"kty": "oct"}, "`kty`"),
        ({"kty": "oct", "k": "eHh4"}, "private or symmetric"),
    ],
)
def test_puts_aside_what_is_no_public_key(member: object, why: str) -> None:
    assert why in put_aside(member)


@pytest.mark.parametrize("name", ["d", "p", "q", "dp", "dq", "qi", "oth"])
def test_puts_aside_a_key_that_is_published_with_its_private_half(name: str) -> None:
    assert "private" in put_aside(rsa_jwk(**{name: "AQAB"}))


@pytest.mark.parametrize("alg", ["", "none", "HS256", "RSA-OAEP", "ES256", "rs256", ["RS256"], {}, 5, True])
def test_puts_aside_a_key_whose_algorithm_does_not_fit(alg: object) -> None:
    assert put_aside({**rsa_jwk(), "alg": alg}) == "`alg` does not fit the key"


def test_puts_aside_an_algorithm_of_another_curve() -> None:
    assert put_aside(jwk("ES256", alg="ES384")) == "`alg` does not fit the key"
    assert put_aside(jwk("EdDSA", alg="Ed25519")) == "`alg` does not fit the key"  # RFC 9864; Envoy refuses it too


@pytest.mark.parametrize("use", ["enc", "", "SIG", ["sig"], 5, {}])
def test_puts_aside_a_key_for_another_use(use: object) -> None:
    assert put_aside(rsa_jwk(use=use)) == "`use` is not sig"
    assert key_set(rsa_jwk(use="sig")).keys


@pytest.mark.parametrize("operations", [[], ["encrypt"], ["sign"], "verify", {"verify": 1}, 5])
def test_puts_aside_a_key_whose_operations_are_without_verify(operations: object) -> None:
    assert put_aside(rsa_jwk(key_ops=operations)) == "`key_ops` is without verify"
    assert key_set(rsa_jwk(key_ops=["sign", "verify"])).keys


@pytest.mark.parametrize("kid", [5, [1], {}, True, "k" * 257])
def test_puts_aside_a_key_whose_kid_is_no_short_string(kid: object) -> None:
    assert "`kid`" in put_aside(rsa_jwk(kid=kid))
    assert key_set(rsa_jwk(kid="k" * 256)).keys
    assert key_set(rsa_jwk(kid=None)).keys[0].kid == ""


def test_says_which_member_was_put_aside() -> None:
    rejected = key_set(rsa_jwk(kid="named", use="enc"), rsa_jwk(kid=["x"]), None).rejected  # type: ignore[arg-type]

    assert [(each.index, each.kid) for each in rejected] == [(0, "named"), (1, ""), (2, "")]


@pytest.mark.parametrize("bits", [512, 1024, 2047, 8193, 16384])
def test_puts_aside_an_rsa_key_of_the_wrong_size(bits: int) -> None:
    assert put_aside(rsa_jwk(n=number(2 ** (bits - 1) + 1))) == f"modulus of {bits} bits"
    for fine in (2048, 8192):
        assert key_set(rsa_jwk(n=number(2 ** (fine - 1) + 1))).keys


@pytest.mark.parametrize("e", [1, 2, 65536, 2**33 + 1, 2**2400 + 1])
def test_puts_aside_an_rsa_key_with_a_bad_exponent(e: int) -> None:
    assert put_aside(rsa_jwk(e=number(e))) == "no RSA public key"
    for fine in (3, 65537, 2**32 + 1):
        assert key_set(rsa_jwk(e=number(fine))).keys


def test_puts_aside_an_rsa_key_with_an_even_modulus() -> None:
    assert put_aside(rsa_jwk(n=number(modulus() + 1))) == "no RSA public key"


def test_puts_aside_a_modulus_of_the_generator_with_the_roca_flaw() -> None:
    """CVE-2017-15361: such a modulus is a power of 65537 modulo small primes; other moduli are not."""
    product = math.prod((11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157))
    flawed = pow(65537, 77, product) + product * (2**2047 // product + 1)
    flawed += 0 if flawed % 2 else product

    assert "CVE-2017-15361" in put_aside(rsa_jwk(n=number(flawed)))
    assert "CVE-2017-15361" not in put_aside(rsa_jwk(n=number(flawed + 1)))
    assert key_set(rsa_jwk(n=number(modulus()))).keys


@pytest.mark.parametrize("name", ["n", "e"])
@pytest.mark.parametrize("value", [None, 5, [[["x"]]], "AQAB=", "A+/B", "A"])
def test_puts_aside_an_rsa_key_with_a_member_that_is_not_base64url(name: str, value: object) -> None:
    assert f"`{name}`" in put_aside(rsa_jwk(**{name: value}))


def test_leading_zeros_make_no_other_thumbprint() -> None:
    n = encode(b"\0" + RSAAlgorithm.from_jwk(rsa_jwk()).public_numbers().n.to_bytes(256))  # type: ignore[union-attr]
    spellings = (rsa_jwk(), rsa_jwk(n=n), rsa_jwk(e="AAEAAQ"), rsa_jwk(n=n, e="AAEAAQ"))

    assert len({key.thumbprint for each in spellings for key in key_set(each).keys}) == 1


def test_takes_a_modulus_with_leading_zeros() -> None:
    """RFC 7518 2 forbids them, issuers write them and Envoy reads them; the number is the same."""
    n = modulus()
    assert key_set(rsa_jwk(n=encode(b"\0" + n.to_bytes(256)))).keys


@pytest.mark.parametrize("crv", [None, "P-192", "secp256k1", "brainpoolP256r1", ["P-256"], 5])
def test_puts_aside_a_curve_that_no_algorithm_uses(crv: object) -> None:
    assert "`crv`" in put_aside(jwk("ES256", crv=crv))


def test_puts_aside_a_point_that_is_not_on_its_curve() -> None:
    zero = encode(bytes(32))

    assert put_aside(jwk("ES256", x=zero, y=zero)) == "the point is not on the curve"
    assert put_aside(jwk("ES256", x=jwk("ES256", 1)["x"])) == "the point is not on the curve"
    assert put_aside(jwk("ES256", x=encode(b"\xff" * 32))) == "the point is not on the curve"


@pytest.mark.parametrize(("algorithm", "length"), [("ES256", 32), ("ES384", 48), ("ES512", 66)])
def test_puts_aside_a_coordinate_of_another_length(algorithm: str, length: int) -> None:
    """RFC 7518 6.2.1.2. Envoy (BoringSSL) takes coordinates without their leading zeros; we do not."""
    for octets in (bytes(length - 1), bytes(length + 1), b""):
        assert put_aside(jwk(algorithm, y=encode(octets) or "AA")) == f"coordinates that are not {length} octets"


@pytest.mark.parametrize("crv", [None, "Ed448", "X25519", "P-256"])
def test_puts_aside_any_okp_but_ed25519(crv: object) -> None:
    assert put_aside(jwk("EdDSA", crv=crv)) == "`crv` is not Ed25519"


@pytest.mark.parametrize("length", [1, 31, 33, 57])
def test_puts_aside_an_ed25519_key_of_another_length(length: int) -> None:
    assert put_aside(jwk("EdDSA", x=encode(bytes([7]) * length))) == "`x` is not 32 octets"


def test_puts_aside_every_point_of_small_order_and_every_other_spelling_of_one() -> None:
    """With such a key anybody can sign: the eight points, both signs, and y at or above p."""
    p, d = 2**255 - 19, -121665 * pow(121666, -1, 2**255 - 19)
    y8 = next(y for y in roots_of_order_eight(p, d))
    for y in (0, 1, p - 1, y8, p - y8, p, p + 1, 2**255 - 1):
        for sign in (0, 2**255):
            assert "small order" in put_aside(jwk("EdDSA", x=encode((y + sign).to_bytes(32, "little"))))


def roots_of_order_eight(p: int, d: int) -> list[int]:
    """The y of the points that double to one of order four.

    Those have y = 0, so x^2 = -y^2 before; put into -x^2 + y^2 = 1 + d x^2 y^2 that is d y^4 + 2 y^2 - 1 = 0.
    """
    root = square_root((1 + d) % p, p)
    assert root is not None
    squares = [(-1 + sign * root) * pow(d, -1, p) % p for sign in (1, -1)]
    found = [square_root(square, p) for square in squares]
    return [y for y in found if y is not None]


def square_root(a: int, p: int) -> int | None:
    """A square root modulo p = 5 mod 8, if there is one (RFC 8032 5.1.3)."""
    root = pow(a, (p + 3) // 8, p)
    if root * root % p != a:
        root = root * pow(2, (p - 1) // 4, p) % p
    return root if root * root % p == a else None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "JSON"),
        ("<html>", "JSON"),
        ('{"keys":[],}', "JSON"),
        ('{"keys":[],"keys":[]}', "a name twice"),
        ("\ufeff{}", "JSON"),
        ("[]", "not an object"),
        ("null", "not an object"),
        ("{}", "no `keys` array"),
        ('{"keys":null}', "no `keys` array"),
        ('{"keys":{}}', "no `keys` array"),
        (json.dumps({"keys": [{}] * (MAX_KEYS + 1)}), "more than 100 keys"),
        (json.dumps({"keys": [{}] * 10_000}), "more than 1024 elements"),
        (" " * (MAX_TEXT + 1), "longer than"),
    ],
)
def test_refuses_a_text_that_is_no_key_set(text: str, why: str) -> None:
    with pytest.raises(KeySetError, match=why):
        KeySet.parse(text)


def test_a_set_may_be_empty_or_full_or_of_strangers() -> None:
    assert KeySet.parse('{"keys":[]}') == KeySet(keys=())
    assert len(key_set(*[jwk("ES256")] * MAX_KEYS).keys) == MAX_KEYS
    assert len(key_set({"kty": "AKP"}, {"kty": "oct"}).rejected) == 2


def test_offers_keys_by_kid_and_algorithm() -> None:
    keys = key_set(jwk("RS256"), jwk("ES256"), jwk("ES256", 1), jwk("RS256", 1, kid=None, alg=None))

    def names(algorithm: str, kid: str) -> list[str]:
        return [key.kid for key in keys.eligible(algorithm, kid)]

    assert names("ES256", "ES256-1") == ["ES256-1"]
    assert names("ES256", "") == ["ES256-0", "ES256-1"]
    assert names("ES256", "other") == []
    assert names("RS256", "RS256-0") == ["RS256-0", ""]
    assert names("RS256", "other") == [""]
    assert names("PS256", "RS256-0") == [""]
    assert names("ES384", "") == []
    assert names("EdDSA", "ES256-0") == []


def test_offers_every_key_of_one_kid_but_no_more_than_it_may_try() -> None:
    keys = key_set(*(jwk("ES256", which, kid="same") for which in range(MAX_CANDIDATES + 3)))

    assert keys.eligible("ES256", "same") == keys.keys[:MAX_CANDIDATES]


def test_sets_are_equal_if_their_keys_are() -> None:
    assert key_set(jwk("ES256"), jwk("RS256")) == key_set(jwk("ES256", use="sig"), jwk("RS256"))
    assert key_set(jwk("ES256")) != key_set(jwk("ES256", 1, kid="ES256-0"))
    assert key_set(jwk("ES256")) != key_set(jwk("ES256", kid="other"))


def test_the_thumbprint_is_that_of_rfc_7638() -> None:
    n = (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3ok"
        "njhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6"
        "qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awa"
        "pJzKnqDKgw"
    )
    (key,) = key_set({"kty": "RSA", "n": n, "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"}).keys

    assert encode(bytes.fromhex(key.thumbprint)) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


@given(st.text() | st.recursive(st.none() | st.text(), st.lists).map(lambda keys: json.dumps({"keys": keys})))
def test_returns_or_raises_its_own_error(text: str) -> None:
    with contextlib.suppress(KeySetError):
        KeySet.parse(text)


MEMBERS = st.sampled_from(["kty", "crv", "x", "y", "n", "e", "alg", "use", "kid", "key_ops", "d"])
VALUES = (
    st.sampled_from(["RSA", "EC", "OKP", "P-256", "Ed25519", "AQAB", "sig"]) | st.text() | st.integers() | st.none()
)


@given(st.lists(st.dictionaries(MEMBERS, VALUES | st.lists(VALUES)), max_size=5))
def test_no_member_is_lost_or_harms_another(members: list[dict[str, Any]]) -> None:
    with contextlib.suppress(KeySetError):  # an integer of more than 19 digits spoils the document
        keys = KeySet.parse(json.dumps({"keys": [*members, jwk("ES256")]}))

        assert len(keys.keys) + len(keys.rejected) == len(members) + 1
        assert keys.keys[-1].kid == GOOD


def test_no_json_test_file_is_a_key_set() -> None:
    for name, octets in json_test_suite():
        with pytest.raises((KeySetError, UnicodeDecodeError)):
            KeySet.parse(octets.decode())
        assert name


def test_the_key_set_of_rfc_7517_has_one_key_for_signatures() -> None:
    keys = KeySet.parse(json.dumps(vectors("rfc/rfc_examples.json")["jwk_sets"]["RFC7517-A.1"]))

    assert [key.kid for key in keys.keys] == ["2011-04-29"]
    assert [each.why for each in keys.rejected] == ["`use` is not sig"]
