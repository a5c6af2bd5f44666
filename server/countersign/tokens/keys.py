"""JWKS text to the public keys that may verify a token. A bad member is put aside with its reason; the rest works.

RFC 7517 (the set), RFC 7518 6 and RFC 8037 2 (the key types). Only what can verify one of `jose.ALGORITHMS` is a key
here: never `oct`, never a weak RSA key, never a point that verifies everything.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, cast

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    SECP384R1,
    SECP521R1,
    EllipticCurve,
    EllipticCurvePublicKey,
    EllipticCurvePublicNumbers,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from countersign.tokens.jose import Base64Error, decode_base64url
from countersign.tokens.strict_json import JsonError, loads

MAX_TEXT: Final = 1024 * 1024  # characters
MAX_KEYS: Final = 100
MAX_CANDIDATES: Final = 8  # signatures tried for one token
_MAX_KID: Final = 256

_RSA_BITS: Final = range(2048, 8192 + 1)  # NIST SP 800-131A; above, one signature costs milliseconds
_RSA_EXPONENT_BITS: Final = 33  # BoringSSL's bound, so Envoy's
_RSA_ALGORITHMS: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
PRIVATE: Final = "has private or symmetric members"
_PRIVATE_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})

_ED25519_LENGTH: Final = 32
_ED25519_P: Final = 2**255 - 19
_ED25519_ORDER_8: Final = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
# The y of every point whose order divides 8. With such a key a signature can be made that verifies any message.
_ED25519_SMALL_ORDER: Final = frozenset({0, 1, _ED25519_P - 1, _ED25519_ORDER_8, _ED25519_P - _ED25519_ORDER_8})

# CVE-2017-15361 (ROCA): the flawed generator made primes, so moduli, that are powers of 65537 modulo small primes.
_ROCA_PRIMES: Final = (11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157)
_ROCA_RESIDUES: Final = tuple((prime, frozenset(pow(65537, i, prime) for i in range(prime))) for prime in _ROCA_PRIMES)

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey


class KeySetError(ValueError):
    """The text is no JWKS at all."""


class _KeyError(ValueError):
    """One member is no key for us."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One public key, ``kid`` empty if it has none, and the algorithms it may verify.

    ``thumbprint`` (RFC 7638, SHA-256, base16) stands for the key material where keys are compared.
    """

    kid: str
    algorithms: frozenset[str]
    thumbprint: str
    public: PublicKey = field(compare=False, repr=False)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled for another process of ours, with the public key as SubjectPublicKeyInfo (RFC 5280 4.1)."""
        der = self.public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return _unpickled, (self.kid, self.algorithms, self.thumbprint, der)


def _unpickled(kid: str, algorithms: frozenset[str], thumbprint: str, der: bytes) -> Key:
    public = cast(PublicKey, load_der_public_key(der))  # it was one when it was pickled
    return Key(kid=kid, algorithms=algorithms, thumbprint=thumbprint, public=public)


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedKey:
    """A member that was put aside: where, its ``kid`` if it has a usable one, and why."""

    index: int
    kid: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True, weakref_slot=True)
class KeySet:
    """The usable keys of one issuer, in their order. Equal sets verify the same tokens.

    ``expired``: there were keys, and they are too old to count.
    """

    keys: tuple[Key, ...]
    rejected: tuple[RejectedKey, ...] = ()
    expired: bool = False

    @classmethod
    def parse(cls, text: str) -> "KeySet":
        """Read a JWKS. Raise `KeySetError` if it is none; members that are no keys for us go to ``rejected``."""
        keys: list[Key] = []
        rejected: list[RejectedKey] = []
        for index, member in enumerate(members_of(text)):
            try:
                keys.append(_key(member))
            except _KeyError as error:
                kid = member.get("kid") if isinstance(member, dict) else None
                named = kid if isinstance(kid, str) and len(kid) <= _MAX_KID else ""
                rejected.append(RejectedKey(index=index, kid=named, why=str(error)))
        return cls(keys=tuple(keys), rejected=tuple(rejected))

    def sharing(self, previous: "KeySet | None") -> "KeySet":
        """The same set, with the very keys of the previous one where they are equal; that one itself if all are."""
        if previous is None or self == previous:
            return previous or self
        known = {key: key for key in previous.keys}
        return replace(self, keys=tuple(known.get(key, key) for key in self.keys))

    def eligible(self, algorithm: str, kid: str) -> tuple[Key, ...]:
        """The keys to try, at most `MAX_CANDIDATES`: fitting the algorithm, and the same kid or none on a side.

        Of several keys with one kid each is tried, as in Envoy (jwt_verify_lib, verify.cc).
        """
        fitting = [key for key in self.keys if algorithm in key.algorithms and (not kid or key.kid in ("", kid))]
        return tuple(fitting[:MAX_CANDIDATES])


def members_of(text: str) -> list[Any]:
    """The members of a JWKS, unread. Raise `KeySetError`."""
    if len(text) > MAX_TEXT:
        raise KeySetError(f"longer than {MAX_TEXT} characters")
    try:
        document = loads(text)
    except JsonError as error:
        raise KeySetError(f"no JSON with one reading: {error}") from error
    if not isinstance(document, dict):
        raise KeySetError("not an object")
    members = document.get("keys")
    if not isinstance(members, list):
        raise KeySetError("no `keys` array")
    if len(members) > MAX_KEYS:
        raise KeySetError(f"more than {MAX_KEYS} keys")
    return members


def _key(jwk: object) -> Key:
    if not isinstance(jwk, dict):
        raise _KeyError("not an object")
    if not _PRIVATE_MEMBERS.isdisjoint(jwk):  # an issuer that publishes private keys has lost them
        raise _KeyError(PRIVATE)
    _check_purpose(jwk)
    kid = jwk.get("kid", "")
    if not isinstance(kid, str) or len(kid) > _MAX_KID:
        raise _KeyError(f"`kid` is not a string of at most {_MAX_KID} characters")
    match jwk.get("kty"):
        case "RSA":
            public, algorithms, required = _rsa(jwk)
        case "EC":
            public, algorithms, required = _ec(jwk)
        case "OKP":
            public, algorithms, required = _okp(jwk)
        case _:
            raise _KeyError("`kty` is none of RSA, EC, OKP")
    if "alg" in jwk:
        algorithms = frozenset(algorithm for algorithm in algorithms if algorithm == jwk["alg"])
        if not algorithms:
            raise _KeyError("`alg` does not fit the key")
    return Key(kid=kid, algorithms=algorithms, thumbprint=_thumbprint(jwk, required), public=public)


def _check_purpose(jwk: Mapping[str, Any]) -> None:
    if jwk.get("use", "sig") != "sig":  # RFC 7517 4.2
        raise _KeyError("`use` is not sig")
    operations = jwk.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:  # RFC 7517 4.3
        raise _KeyError("`key_ops` is without verify")


def _rsa(jwk: Mapping[str, Any]) -> tuple[PublicKey, frozenset[str], tuple[str, ...]]:
    n = int.from_bytes(_octets(jwk, "n"))
    e = int.from_bytes(_octets(jwk, "e"))
    if n.bit_length() not in _RSA_BITS:
        raise _KeyError(f"modulus of {n.bit_length()} bits")
    if n % 2 == 0 or e % 2 == 0 or e < 3 or e.bit_length() > _RSA_EXPONENT_BITS:  # noqa: PLR2004 (RFC 8017 3.1)
        raise _KeyError("no RSA public key")
    if all(n % prime in residues for prime, residues in _ROCA_RESIDUES):
        raise _KeyError("modulus from a flawed generator (CVE-2017-15361)")
    return RSAPublicNumbers(e, n).public_key(), _RSA_ALGORITHMS, ("e", "kty", "n")


def _ec(jwk: Mapping[str, Any]) -> tuple[PublicKey, frozenset[str], tuple[str, ...]]:
    curve: EllipticCurve
    match jwk.get("crv"):
        case "P-256":
            curve, length, algorithm = SECP256R1(), 32, "ES256"
        case "P-384":
            curve, length, algorithm = SECP384R1(), 48, "ES384"
        case "P-521":
            curve, length, algorithm = SECP521R1(), 66, "ES512"
        case _:
            raise _KeyError("`crv` is none of P-256, P-384, P-521")
    x, y = _octets(jwk, "x"), _octets(jwk, "y")
    if len(x) != length or len(y) != length:  # RFC 7518 6.2.1.2: full size, leading zeros included
        raise _KeyError(f"coordinates that are not {length} octets")
    try:
        public = EllipticCurvePublicNumbers(int.from_bytes(x), int.from_bytes(y), curve).public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _KeyError("the point is not on the curve") from error
    return public, frozenset({algorithm}), ("crv", "kty", "x", "y")


def _okp(jwk: Mapping[str, Any]) -> tuple[PublicKey, frozenset[str], tuple[str, ...]]:
    if jwk.get("crv") != "Ed25519":
        raise _KeyError("`crv` is not Ed25519")
    octets = _octets(jwk, "x")
    if len(octets) != _ED25519_LENGTH:
        raise _KeyError(f"`x` is not {_ED25519_LENGTH} octets")
    y = int.from_bytes(octets, "little") & (2**255 - 1)  # RFC 8032 5.1.2: the top bit is the sign of x
    if y >= _ED25519_P or y in _ED25519_SMALL_ORDER:
        raise _KeyError("a point of small order or not in canonical form")
    return Ed25519PublicKey.from_public_bytes(octets), frozenset({"EdDSA"}), ("crv", "kty", "x")


def _octets(jwk: Mapping[str, Any], member: str) -> bytes:
    text = jwk.get(member)
    if not isinstance(text, str):
        raise _KeyError(f"`{member}` is not a string")
    try:
        return decode_base64url(text)
    except Base64Error as error:
        raise _KeyError(f"`{member}` is not base64url") from error


def _shortest(jwk: Mapping[str, Any], member: str) -> str:
    """The member; a number of RSA's without the leading zeros that some libraries add (RFC 7518 6.3.1.1)."""
    text = str(jwk[member])
    if member not in {"n", "e"} or not text.startswith("A"):  # six zero bits
        return text
    return base64.urlsafe_b64encode(_octets(jwk, member).lstrip(b"\0")).rstrip(b"=").decode()


def _thumbprint(jwk: Mapping[str, Any], required: tuple[str, ...]) -> str:
    text = json.dumps({name: _shortest(jwk, name) for name in required}, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
