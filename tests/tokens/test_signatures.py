"""Signatures that are made by hand to be taken for good ones: the rows of our corpus that have no text, only a name."""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from countersign.core.posture import Posture
from countersign.tokens.jose import TokenError, parse
from countersign.tokens.keys import KeySet
from countersign.tokens.verify import verify
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import RSAAlgorithm

from tests.tokens.material import CLAIMS, NOW, cases, encode, jwk, key_set, private_key, rule, segment, signature

RULE: Final = rule()
KEYS: Final = key_set()

# Group orders: FIPS 186-4 D.1.2, RFC 8032 5.1.
ORDERS: Final[Mapping[str, tuple[int, int]]] = {
    "ES256": (32, 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551),
    "ES384": (48, 2**384 - 0x389CB27E0BC8D220A7E5F24DB74F58851313E695333AD68D),
    "ES512": (66, 2**521 - 0x5AE79787C40D069948033FEB708F65A2FC44A36477663B851449048E16EC79BF7),
}
ED25519_ORDER: Final = 2**252 + 27742317777372353535851937790883648493
SHA256_INFO: Final = bytes.fromhex("3031300d060960864801650304020105000420")  # RFC 8017 9.2

Case = tuple[str, KeySet]


def text(algorithm: str) -> str:
    """What is signed."""
    return f"{segment({'alg': algorithm})}.{segment(dict(CLAIMS))}"


def signed(algorithm: str, octets: bytes, keys: KeySet = KEYS) -> Case:
    """The token with these octets for its signature, and the keys it is judged by."""
    return f"{text(algorithm)}.{encode(octets)}", keys


def taken(case: Case) -> bool:
    token, keys = case
    try:
        verify(parse(token), RULE, keys, NOW, Posture.ISTIO)
    except TokenError:
        return False
    return True


def pair(algorithm: str, r: int, s: int) -> bytes:
    length = ORDERS[algorithm][0]
    return r.to_bytes(length) + s.to_bytes(length)


def good_pair(algorithm: str) -> tuple[int, int]:
    octets, length = signature(text(algorithm), algorithm), ORDERS[algorithm][0]
    return int.from_bytes(octets[:length]), int.from_bytes(octets[length:])


def zeros(algorithm: str) -> Iterator[Case]:
    yield signed(algorithm, bytes(2 * ORDERS[algorithm][0]))


def out_of_range(algorithm: str) -> Iterator[Case]:
    n = ORDERS[algorithm][1]
    for r, s in itertools.product((0, 1, n - 1, n, n + 1), repeat=2):
        yield signed(algorithm, pair(algorithm, r, s))
    r, s = good_pair(algorithm)
    for wrong in ((r, 0), (r, n), (0, s), (n, s)):
        yield signed(algorithm, pair(algorithm, *wrong))


def der(algorithm: str) -> Iterator[Case]:
    digests = {"ES256": hashes.SHA256(), "ES384": hashes.SHA384(), "ES512": hashes.SHA512()}
    key = private_key(algorithm)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    octets = key.sign(text(algorithm).encode(), ec.ECDSA(digests[algorithm]))
    assert decode_dss_signature(octets)
    yield signed(algorithm, octets)


def of_another_length(algorithm: str) -> Iterator[Case]:
    good, length = signature(text(algorithm), algorithm), ORDERS[algorithm][0]
    r, s = good[:length], good[length:]
    for octets in (b"\0" + good, b"\0" + r + b"\0" + s, good + b"\0", good[:-1], good[1:], r, good + good):
        yield signed(algorithm, octets)


def high_s(algorithm: str) -> Iterator[Case]:
    """As good as the other: so the text of a token never names it, where tokens are counted or revoked."""
    r, s = good_pair(algorithm)
    yield signed(algorithm, pair(algorithm, r, ORDERS[algorithm][1] - s))


def eddsa_zeros() -> Iterator[Case]:
    yield signed("EdDSA", bytes(64))


def eddsa_with_another_s() -> Iterator[Case]:
    good = signature(text("EdDSA"), "EdDSA")
    s = int.from_bytes(good[32:], "little") + ED25519_ORDER
    yield signed("EdDSA", good[:32] + s.to_bytes(32, "little"))


def eddsa_of_small_order() -> Iterator[Case]:
    """With such a key, R = S = 0 in effect verifies most messages."""
    p, y8 = 2**255 - 19, 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
    identity = (1).to_bytes(32, "little")
    for y, sign in itertools.product((0, 1, p - 1, p, p + 1, y8, p - y8), (0, 1)):
        octets = (y | sign << 255).to_bytes(32, "little")
        keys = key_set({"kty": "OKP", "crv": "Ed25519", "x": encode(octets)})
        assert not keys.keys
        yield signed("EdDSA", identity + bytes(32), keys)


def eddsa_by_ed448() -> Iterator[Case]:
    key = ed448.Ed448PrivateKey.generate()
    octets = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    keys = key_set({"kty": "OKP", "crv": "Ed448", "x": encode(octets)})
    yield signed("EdDSA", key.sign(text("EdDSA").encode()), keys)


def rsa_with_a_zero_before_it() -> Iterator[Case]:
    good = signature(text("RS256"), "RS256")
    yield signed("RS256", b"\0" + good)
    yield signed("RS256", good[1:])


def rsa_forged_for_e_3() -> Iterator[Case]:
    """A cube whose first octets are the right padding and digest, and whose rest nobody should leave unread."""
    key = rsa.generate_private_key(public_exponent=3, key_size=2048).public_key()
    keys = key_set(RSAAlgorithm.to_jwk(key, as_dict=True))
    assert keys.keys
    digest = hashes.Hash(hashes.SHA256())
    digest.update(text("RS256").encode())
    head = b"\0\1" + b"\xff" * 8 + b"\0" + SHA256_INFO + digest.finalize()
    root = cube_root(int.from_bytes(head + b"\xff" * (256 - len(head))))
    assert (root**3).to_bytes(256).startswith(head)
    yield signed("RS256", root.to_bytes(256), keys)


def cube_root(number: int) -> int:
    """The greatest integer whose cube is not greater."""
    low, high = 0, 1 << math.ceil(number.bit_length() / 3)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if middle**3 <= number else (low, middle - 1)
    return low


def pss_of_other_parameters() -> Iterator[Case]:
    key = private_key("PS256")
    assert isinstance(key, rsa.RSAPrivateKey)
    sha1, sha256 = hashes.SHA1(), hashes.SHA256()  # noqa: S303 (that it is refused is the point)
    for mgf, salt in ((sha256, 0), (sha256, 20), (sha256, 33), (sha256, 222), (sha1, 32)):
        octets = key.sign(text("PS256").encode(), padding.PSS(padding.MGF1(mgf), salt), sha256)
        yield signed("PS256", octets)


def rsa_of_a_few_octets() -> Iterator[Case]:
    for octets in (b"", b"\0", b"\1", b"\0" * 256, b"\xff" * 256):
        yield signed("RS256", octets)


def by_a_key_for_encryption() -> Iterator[Case]:
    good = signature(text("RS256"), "RS256")
    for members in ({"use": "enc"}, {"key_ops": ["encrypt"]}):
        yield signed("RS256", good, key_set(jwk("RS256", **members)))


Made = Callable[[], Iterator[Case]]


def of(make: Callable[[str], Iterator[Case]], algorithm: str) -> Made:
    return lambda: make(algorithm)


MADE: Final[Mapping[str, Made]] = {
    **{
        f"{algorithm} {name}": of(make, algorithm)
        for algorithm in ORDERS
        for name, make in {
            "r=0,s=0 (64/96/132 zero bytes)": zeros,
            "r=n,s=n / r=0,s=1 / r=1,s=0 / r=n-1.. / s=n": out_of_range,
            "DER-encoded signature": der,
            "r||s with extra leading zero byte / wrong length": of_another_length,
            "high-S variant (s' = n - s)": high_s,
        }.items()
    },
    "EdDSA all-zero signature": eddsa_zeros,
    "EdDSA S >= L (non-canonical S)": eddsa_with_another_s,
    "EdDSA small-order public key in JWKS (8 encodings)": eddsa_of_small_order,
    "Ed448 key with EdDSA": eddsa_by_ed448,
    "RS256 signature with leading zero byte added/removed": rsa_with_a_zero_before_it,
    "RS256 e=3 PKCS#1 padding forgery (Bleichenbacher 2006)": rsa_forged_for_e_3,
    "PS256 wrong salt length / MGF hash": pss_of_other_parameters,
    "RSA signature with 1-byte or empty value": rsa_of_a_few_octets,
    "signature made by a key with use=enc or key_ops=[encrypt]": by_a_key_for_encryption,
}


def test_only_another_s_of_ecdsa_is_as_good_as_the_signature() -> None:
    for algorithm in (*ORDERS, "EdDSA", "RS256", "PS256"):
        assert taken(signed(algorithm, signature(text(algorithm), algorithm)))
    for name, make in MADE.items():
        results = {taken(case) for case in make()}
        assert results == {"high-S" in name}, name


def test_every_adversarial_signature_of_the_corpus_is_made() -> None:
    rows: list[Any] = [row for row in cases("jwt/jwt_adversarial_cases.json", "cases") if row["group"] == "signature"]
    unmade = {row["name"] for row in rows if not {"header", "claims_patch", "raw", "raw_payload"} & row.keys()}

    assert unmade == set(MADE)
    assert {row["name"] for row in rows if row["expect"] == "accept"} == {name for name in MADE if "high-S" in name}
