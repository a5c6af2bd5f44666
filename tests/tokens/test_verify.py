"""One token against one rule: issuer, times, audience, keys, signature, in Envoy's order and with its statuses."""

from collections.abc import Mapping
from typing import Any

import pytest
from countersign.core.decision import Reason
from countersign.core.identity import VerifiedToken
from countersign.core.jwt_rule import JwtRule
from countersign.core.posture import Posture
from countersign.tokens.jose import TokenError, parse
from countersign.tokens.keyring import TOO_OLD
from countersign.tokens.keys import KeySet
from countersign.tokens.verify import verify
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from jwt.utils import der_to_raw_signature

from tests.tokens.material import (
    ALGORITHMS,
    AUDIENCE,
    CLAIMS,
    ISSUER,
    NOW,
    cases,
    encode,
    inline,
    jwk,
    key_set,
    private_key,
    rule,
    segment,
    sign,
    signature,
)

KEYS = key_set()
RULE = rule(audiences=(AUDIENCE,))
STRICT, ISTIO = Posture.STRICT, Posture.ISTIO
BOTH = pytest.mark.parametrize("posture", [STRICT, ISTIO])


def check(
    token: str, *, by: JwtRule = RULE, keys: KeySet | None = KEYS, now: float = NOW, posture: Posture = STRICT
) -> VerifiedToken:
    return verify(parse(token), by, keys, now, posture)


def takes(token: str, **how: Any) -> bool:
    """Whether the token verifies; if it does not, the error says why."""
    check(token, **how)
    return True


def refusal(token: str, **how: Any) -> tuple[Reason, str]:
    with pytest.raises(TokenError) as caught:
        check(token, **how)
    return caught.value.reason, caught.value.text


def without(*names: str, **changed: Any) -> dict[str, Any]:
    """The usual claims without some of them, and with some changed."""
    return {name: value for name, value in {**CLAIMS, **changed}.items() if name not in names}


BAD_SIGNATURE = (Reason.TOKEN_SIGNATURE, "Jwt verification fails")
UNKNOWN_KEY = (Reason.TOKEN_UNKNOWN_KEY, "Jwks doesn't have key to match kid or alg from Jwt")
EXPIRED = (Reason.TOKEN_EXPIRED, "Jwt is expired")
EARLY = (Reason.TOKEN_NOT_YET_VALID, "Jwt not yet valid")
AUDIENCES = (Reason.TOKEN_AUDIENCE, "Audiences in Jwt are not allowed")
ISSUERS = (Reason.TOKEN_ISSUER, "Jwt issuer is not configured")


@BOTH
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_verifies_every_algorithm_and_refuses_another_key(algorithm: str, posture: Posture) -> None:
    token = check(sign(algorithm=algorithm), posture=posture)

    assert (token.issuer, token.subject, token.expires_at) == (ISSUER, "alice", NOW + 600)
    assert dict(token.claims) == CLAIMS
    forged = sign(algorithm=algorithm, which=1, header={"alg": algorithm, "kid": f"{algorithm}-0"})
    assert refusal(forged, posture=posture) == BAD_SIGNATURE


def test_claims_are_read_only() -> None:
    with pytest.raises(TypeError):
        check(sign()).claims["sub"] = "bob"  # type: ignore[index]


# The issuer


@BOTH
@pytest.mark.parametrize(
    "issuer",
    ["https://evil.example", ISSUER + "/", ISSUER.upper(), ISSUER[:-1], "", "https://idp.\xe9xample", ISSUER + "\0"],
)
def test_refuses_any_issuer_but_the_rules(issuer: str, posture: Posture) -> None:
    assert refusal(sign(without(iss=issuer)), posture=posture) == ISSUERS
    assert refusal(sign(without("iss")), posture=posture) == ISSUERS
    assert check(sign(), posture=posture).issuer == ISSUER


def test_a_rule_without_an_issuer_takes_any() -> None:
    anyone = rule("", audiences=(AUDIENCE,))

    assert check(sign(without(iss="https://other")), by=anyone).issuer == "https://other"
    assert check(sign(without("iss")), by=anyone).issuer == ""


# Times


@BOTH
@pytest.mark.parametrize("age", [-600, 0, 59, 60, 60.9])
def test_a_token_counts_until_its_leeway_has_passed(age: float, posture: Posture) -> None:
    """At exactly exp + 60 Envoy still accepts, and so do we; our vectors would refuse (D30)."""
    assert check(sign(without(exp=NOW)), now=NOW + age, posture=posture).expires_at == NOW


@BOTH
@pytest.mark.parametrize("age", [61, 3600, 10**9])
def test_a_token_does_not_count_after_its_leeway(age: float, posture: Posture) -> None:
    assert refusal(sign(without(exp=NOW)), now=NOW + age, posture=posture) == EXPIRED
    assert refusal(sign(without(exp=NOW + 0.9)), now=NOW + age, posture=posture) == EXPIRED


@BOTH
def test_a_token_counts_from_its_leeway_before_nbf(posture: Posture) -> None:
    assert takes(sign(without(nbf=NOW + 60)), posture=posture)
    assert refusal(sign(without(nbf=NOW + 61)), posture=posture) == EARLY


def test_strict_refuses_a_token_that_never_expires_and_istio_takes_it() -> None:
    for claims in (without("exp"), without(exp=0), without(exp=0.5)):
        assert refusal(sign(claims)) == (Reason.TOKEN_NO_EXPIRY, "Jwt never expires")
        assert check(sign(claims), posture=ISTIO, now=10**12).expires_at is None
    for far in (253402300800, 2**63, 9223372036854775807):
        assert refusal(sign(without(exp=far)))[0] is Reason.TOKEN_NO_EXPIRY
        assert check(sign(without(exp=far)), posture=ISTIO).expires_at == float(far)
    assert check(sign(without(exp=253402300799))).expires_at == 253402300799


def test_strict_refuses_a_token_from_the_future_and_istio_takes_it() -> None:
    token = sign(without(iat=NOW + 61))

    assert refusal(token) == (Reason.TOKEN_NOT_YET_VALID, "Jwt is issued in the future")
    assert takes(token, posture=ISTIO)
    assert takes(sign(without(iat=NOW + 60)))


def test_agrees_with_the_time_vectors_of_envoy() -> None:
    """Rows with another skew than 60 s do not apply; at the exact end, and without exp, we read as Envoy does."""
    rows = [row for row in cases("envoy/audience_and_time_cases.json", "time") if row["skew"] == 60]
    results = {"expired": EXPIRED, "not_yet_valid": EARLY}
    for row in rows:
        claims = without("exp") | {name: row[name] for name in ("exp", "nbf") if name in row}
        expected = results.get(row["result"])
        if expected:
            assert refusal(sign(claims), now=row["now"], posture=ISTIO) == expected, row["name"]
        else:
            assert takes(sign(claims), now=row["now"], posture=ISTIO), row["name"]
    assert len(rows) == 8


# Dangerous headers


@pytest.mark.parametrize(
    "extension",
    [{"crit": crit} for crit in (["x"], [], "exp", None, ["alg"], ["exp"], ["b64"], [1])]
    + [{"b64": False, "crit": ["b64"]}, {"b64": True}, {"b64": "false"}, {"b64": 0}],
)
def test_strict_refuses_an_extension_and_istio_ignores_it(extension: Mapping[str, Any]) -> None:
    token = sign(header={"alg": "RS256", "kid": "RS256-0", "x": 1, **extension})

    assert refusal(token) == (Reason.TOKEN_MALFORMED, "Jwt header has an extension that is not supported")
    assert takes(token, posture=ISTIO)


@pytest.mark.parametrize("kind", ["JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt", "application/jwt", "JOSE"])
def test_takes_the_types_of_access_tokens(kind: str) -> None:
    assert takes(sign(header={"alg": "RS256", "typ": kind}))


@pytest.mark.parametrize(
    "kind",
    [
        "JWE",
        "logout+jwt",
        "dpop+jwt",
        "secevent+jwt",
        "kb+jwt",
        "token-introspection+jwt",
        "",
        "JOSE+JSON",
        5,
        ["JWT"],
        None,
    ],
)
def test_strict_refuses_another_kind_of_token_and_istio_takes_it(kind: object) -> None:
    token = sign(header={"alg": "RS256", "typ": kind})

    assert refusal(token) == (Reason.TOKEN_TYPE, "Jwt header [typ] is not supported")
    assert takes(token, posture=ISTIO)


@pytest.mark.parametrize("member", [{"zip": "DEF"}, {"enc": "A256GCM"}, {"cty": "JWT"}])
def test_strict_refuses_members_of_encrypted_and_nested_tokens(member: Mapping[str, str]) -> None:
    token = sign(header={"alg": "RS256", **member})

    assert refusal(token) == (Reason.TOKEN_TYPE, "Jwt is encrypted, compressed or nested")
    assert takes(token, posture=ISTIO)


@BOTH
@pytest.mark.parametrize("member", ["jwk", "jku", "x5u", "x5c", "x5t"])
def test_key_material_in_the_header_selects_nothing(member: str, posture: Posture) -> None:
    header = {"alg": "ES256", "kid": "ES256-0", member: jwk("ES256", 1)}

    assert refusal(sign(algorithm="ES256", which=1, header=header), posture=posture) == BAD_SIGNATURE
    assert takes(sign(algorithm="ES256", header=header), posture=posture)


# Audience


def test_agrees_with_the_audience_vectors_of_envoy() -> None:
    rows = cases("envoy/audience_and_time_cases.json", "audience")
    for row in rows:
        by = rule(audiences=tuple(row["configured"]))
        token = sign(without(aud=row["token_aud"]))
        if row["envoy_istio"]:
            assert takes(token, by=by)
        else:
            assert refusal(token, by=by) == AUDIENCES
    assert len(rows) == 46


@BOTH
@pytest.mark.parametrize(
    "audience",
    [
        "svc2",
        "sv",
        ["xsvcx"],
        "",
        [],
        "SVC",
        "svc//",
        "/svc",
        "ftp://svc",
        "HTTPS://svc",
        "http://https://svc",
        "http://",
    ],
)
def test_refuses_another_audience(audience: object, posture: Posture) -> None:
    assert refusal(sign(without(aud=audience)), posture=posture) == AUDIENCES
    assert refusal(sign(without("aud")), posture=posture) == AUDIENCES
    for good in ("svc", ["x", "svc"], "svc/", "https://svc", ["http://svc/"]):
        assert takes(sign(without(aud=good)), posture=posture)


def test_a_rule_without_audiences_checks_none() -> None:
    for claims in (without("aud"), without(aud=""), without(aud=["x"])):
        assert takes(sign(claims), by=rule())


# Keys


def test_says_that_the_keys_are_not_there() -> None:
    assert refusal(sign(), keys=None) == (Reason.KEYS_UNAVAILABLE, "Jwks remote fetch is failed")
    assert refusal(sign(), keys=TOO_OLD) == (Reason.KEYS_STALE, "Jwks remote fetch is failed")
    empty = (Reason.KEYS_UNAVAILABLE, "Jwks doesn't have any valid public key")
    assert refusal(sign(), keys=KeySet(keys=())) == empty
    assert refusal(sign(), keys=None, by=rule(keys=inline())) == empty


@BOTH
def test_a_kid_that_is_not_in_the_set_has_no_key(posture: Posture) -> None:
    for kid in ("nope", "rs256-0", "../../dev/null", "RS256-0\0", "__proto__", "k" * 2000):
        token = sign(header={"alg": "RS256", "kid": kid})
        assert refusal(token, posture=posture) == UNKNOWN_KEY


@BOTH
def test_a_key_without_an_algorithm_verifies_any_that_fits_it(posture: Posture) -> None:
    loose = key_set(jwk("RS256", alg=None, kid="k"))

    for algorithm in ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"):
        header = {"alg": algorithm, "kid": "k"}
        assert takes(sign(algorithm=algorithm, header=header), keys=loose, posture=posture)


@BOTH
@pytest.mark.parametrize(("key", "algorithm"), [("RS256", "PS256"), ("RS256", "RS384"), ("ES256", "RS256")])
def test_a_key_never_verifies_another_algorithm_than_its_own(key: str, algorithm: str, posture: Posture) -> None:
    token = sign(algorithm=algorithm, header={"alg": algorithm, "kid": "k"})

    assert refusal(token, keys=key_set(jwk(key, kid="k")), posture=posture) == UNKNOWN_KEY


def test_without_a_kid_each_fitting_key_is_tried() -> None:
    keys = key_set(jwk("ES256", 1), jwk("RS256"), jwk("ES256", 0))

    assert takes(sign(algorithm="ES256", header={"alg": "ES256"}), keys=keys)
    assert takes(sign(algorithm="ES256", header={"alg": "ES256", "kid": ""}), keys=keys)  # empty is none, as in Envoy
    assert refusal(sign(algorithm="ES256", which=2, header={"alg": "ES256"}), keys=keys) == BAD_SIGNATURE


def test_of_one_kid_each_key_is_tried() -> None:
    keys = key_set(jwk("ES256", 1, kid="k"), jwk("ES256", 0, kid="k"))

    assert takes(sign(algorithm="ES256", header={"alg": "ES256", "kid": "k"}), keys=keys)


# Signatures


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA"])
def test_every_flipped_bit_and_every_shortening_of_a_signature_is_refused(algorithm: str) -> None:
    token = sign(algorithm=algorithm)
    text, _, _ = token.rpartition(".")
    octets = signature(text, algorithm)

    assert takes(f"{text}.{encode(octets)}")
    for bit in range(len(octets) * 8):
        flipped = bytearray(octets)
        flipped[bit // 8] ^= 1 << bit % 8
        assert refusal(f"{text}.{encode(bytes(flipped))}") == BAD_SIGNATURE
    for length in range(1, len(octets)):
        assert refusal(f"{text}.{encode(octets[:length])}") == BAD_SIGNATURE


def test_a_signature_without_its_leading_zero_is_refused() -> None:
    """One of 256 begins with a zero, without which it is the same number."""
    text, _, _ = sign(algorithm="PS256").rpartition(".")
    octets = signature(text, "PS256")
    while octets[0]:
        octets = signature(text, "PS256")  # another one each time: its salt is random

    assert takes(f"{text}.{encode(octets)}")
    assert refusal(f"{text}.{encode(octets[1:])}") == BAD_SIGNATURE


@pytest.mark.parametrize("algorithm", ["RS256", "PS256"])
def test_a_signature_of_another_length_is_refused(algorithm: str) -> None:
    text, _, _ = sign(algorithm=algorithm).rpartition(".")
    octets = signature(text, algorithm)

    for other in (octets[:-1], octets[1:], b"\0" + octets, octets + b"\0", b"\0", b"\0" * 256, b"\1"):
        assert refusal(f"{text}.{encode(other)}") == BAD_SIGNATURE
    flipped = bytes([octets[0] ^ 1]) + octets[1:]
    assert refusal(f"{text}.{encode(flipped)}") == BAD_SIGNATURE


CURVES = {
    "ES256": (32, 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551),
    "ES384": (48, 2**384 - 0x389CB27E0BC8D220A7E5F24DB74F58851313E695333AD68D),
}


@pytest.mark.parametrize("algorithm", CURVES)
def test_a_signature_of_zeros_or_multiples_of_the_order_is_refused(algorithm: str) -> None:
    """CVE-2022-21449."""
    length, n = CURVES[algorithm]
    text, _, _ = sign(algorithm=algorithm).rpartition(".")
    for r in (0, 1, n - 1, n, n + 1, 2 ** (8 * length) - 1):
        for s in (0, 1, n - 1, n, n + 1, 2 ** (8 * length) - 1):
            octets = r.to_bytes(length) + s.to_bytes(length)
            assert refusal(f"{text}.{encode(octets)}") == BAD_SIGNATURE
    for zeros in (64, 96, 132):
        assert refusal(f"{text}.{encode(bytes(zeros))}") == BAD_SIGNATURE


def test_an_ecdsa_signature_is_raw_and_of_one_length() -> None:
    key = private_key("ES256")
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    text, _, _ = sign(algorithm="ES256").rpartition(".")
    octets = signature(text, "ES256")
    r, s = int.from_bytes(octets[:32]), int.from_bytes(octets[32:])
    der = encode_dss_signature(r, s)

    for other in (der, b"\0" + octets, octets + b"\0", octets[:32] + b"\0" + octets[32:]):
        assert refusal(f"{text}.{encode(other)}") == BAD_SIGNATURE
    # Either s of a pair is valid (RFC 7518 asks for no canonical one): a token's text is no identifier.
    high = encode_dss_signature(r, CURVES["ES256"][1] - s)
    assert takes(f"{text}.{encode(der_to_raw_signature(high, key.curve))}")
    assert decode_dss_signature(high)[0] == r


def test_an_ed25519_signature_has_one_form() -> None:
    order = 2**252 + 27742317777372353535851937790883648493
    text, _, _ = sign(algorithm="EdDSA").rpartition(".")
    octets = signature(text, "EdDSA")
    other = octets[:32] + (int.from_bytes(octets[32:], "little") + order).to_bytes(32, "little")

    assert refusal(f"{text}.{encode(other)}") == BAD_SIGNATURE
    assert refusal(f"{text}.{encode(bytes(64))}") == BAD_SIGNATURE


def test_a_changed_payload_is_refused() -> None:
    head, _, tail = sign().split(".")

    assert refusal(f"{head}.{segment(without(sub='bob'))}.{tail}") == BAD_SIGNATURE


# The order


def test_reports_the_first_fault_in_the_order_of_envoy() -> None:
    faults: list[tuple[dict[str, Any], dict[str, Any], KeySet | None, tuple[Reason, str]]] = [
        ({"iss": "x", "nbf": NOW * 2, "exp": 1, "aud": "x"}, {}, None, ISSUERS),
        ({"nbf": NOW * 2, "exp": 1, "aud": "x"}, {}, None, EARLY),
        ({"exp": 1, "aud": "x"}, {}, None, EXPIRED),
        ({"aud": "x"}, {}, None, AUDIENCES),
        ({}, {"kid": "x"}, None, (Reason.KEYS_UNAVAILABLE, "Jwks remote fetch is failed")),
        ({}, {"kid": "x"}, KEYS, UNKNOWN_KEY),
        ({}, {"kid": "RS256-1"}, key_set(jwk("RS256", 0, kid="RS256-1")), BAD_SIGNATURE),
    ]
    for claims, header, keys, expected in faults:
        token = sign(without(**claims), which=1, header={"alg": "RS256", **header})
        for posture in (STRICT, ISTIO):
            assert refusal(token, keys=keys, posture=posture) == expected


# What policies see


def test_space_delimited_claims_become_lists() -> None:
    claims = without(scope="read  write ", permission="", roles="a b", other="a b", groups=["a b"])
    by = rule(space_delimited_claims=frozenset({"scope", "permission", "roles", "groups", "absent"}))

    assert dict(check(sign(claims), by=by).claims) == {
        **claims,
        "scope": ["read", "write"],
        "permission": [],
        "roles": ["a", "b"],
    }


def test_even_the_issuer_is_split_for_policies_where_a_rule_says_so() -> None:
    by = rule(space_delimited_claims=frozenset({"iss"}))
    token = check(sign(), by=by)

    assert (token.issuer, token.claims["iss"]) == (ISSUER, [ISSUER])
    assert check(sign()).claims["iss"] == ISSUER
