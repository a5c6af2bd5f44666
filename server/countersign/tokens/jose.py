"""The compact form of a JWT, parsed strictly before any cryptography. Nothing here is proven yet.

Statuses, their texts and their order are Envoy's (jwt_verify_lib, jwt.cc and status.cc); where we are stricter, the
nearest status answers. The bounds keep the work before the signature small whatever is sent.
"""

import binascii
from binascii import a2b_base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from countersign.core.decision import Reason
from countersign.tokens.strict_json import JsonError, loads

MAX_LENGTH: Final = 8 * 1024  # characters; a header of Envoy's may have 60 KiB
ALGORITHMS: Final = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
)  # RFC 7518 3.1 and RFC 8037 without `none` and HMAC: a verifier that only has public keys cannot check those

_TWO_TO_THE_64: Final = 2**64


class TokenError(ValueError):
    """A token that does not count. ``reason`` is ours; ``text`` may reach the client and names no part of the token."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text

    def bare(self) -> "TokenError":
        """The same, to be kept: without the frames that it has come through, and everything that they hold."""
        return TokenError(self.reason, self.text)


class Base64Error(ValueError):
    """Text that is not the base64url form of any octets."""


@dataclass(frozen=True, slots=True)
class Head:
    """A header that was read, of any token that has the very same: most tokens of a key do.

    ``kid`` is empty if it names no key, as in Envoy. ``segment`` is the header as transmitted.
    """

    segment: bytes
    members: Mapping[str, Any]
    algorithm: str
    kid: str


_NO_HEADS: Final[Mapping[bytes, Head]] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class UnverifiedToken:
    """What a token says. ``payload`` has its registered claims of the right type, and that is all that is known.

    ``payload_json`` is the octets that ``payload`` was read from.
    """

    head: Head
    payload: Mapping[str, Any]
    payload_json: bytes
    signing_input: bytes
    signature: bytes

    @property
    def payload_segment(self) -> str:
        """The payload as transmitted."""
        return self.signing_input.rpartition(b".")[2].decode("ascii")


def parse(token: str, heads: Mapping[bytes, Head] = _NO_HEADS) -> UnverifiedToken:
    """Parse a JWS in compact form (RFC 7515 3.1) that carries a JWT claims set. Raise `TokenError`.

    ``heads`` are headers that need not be read again, by their segments.
    """
    if len(token) > MAX_LENGTH:
        raise _malformed(f"Jwt is longer than {MAX_LENGTH} characters")
    octets = token.encode("ascii", "replace")  # `?` is no base64url either
    segments = octets.split(b".", 3)
    if len(segments) != 3 or not all(segments):  # noqa: PLR2004 (header, payload, signature)
        raise _malformed("Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections")
    head = heads.get(segments[0]) or _head(segments[0])
    payload_json = _octets(segments[1], "payload")
    payload = _json_object(payload_json, "payload")
    _check_registered_claims(payload)
    return UnverifiedToken(
        head=head,
        payload=payload,
        payload_json=payload_json,
        signing_input=octets[: -len(segments[2]) - 1],
        signature=_octets(segments[2], "signature"),
    )


def decode_base64url(text: str) -> bytes:
    """Octets of unpadded base64url (RFC 7515 2). Raise `Base64Error` unless the text is their one canonical form."""
    return _decode(text.encode("ascii", "replace"))


# base64url's own two characters as base64 has them, and those of base64 as something that is in neither.
_STANDARD: Final = bytes.maketrans(b"-_+/=", b"+/***")
# By how many characters the last group has: what completes it, and the last characters that leave no stray bits.
_LAST_GROUP: Final = {
    0: (b"", frozenset(range(128))),
    1: (b"", frozenset[int]()),
    2: (b"==", frozenset(b"AQgw")),
    3: (b"=", frozenset(b"AEIMQUYcgkosw048")),
}


def _decode(text: bytes) -> bytes:
    padding, last = _LAST_GROUP[len(text) % 4]
    if text and text[-1] not in last:  # RFC 4648 3.5
        raise Base64Error("not canonical base64url")
    try:
        return a2b_base64(text.translate(_STANDARD) + padding, strict_mode=True)
    except binascii.Error as error:
        raise Base64Error("not base64url") from error


def _malformed(text: str) -> TokenError:
    return TokenError(Reason.TOKEN_MALFORMED, text)


def _octets(segment: bytes, part: str) -> bytes:
    try:
        return _decode(segment)
    except Base64Error as error:
        raise _malformed(f"Jwt {part} is an invalid Base64url encoded") from error


def _json_object(octets: bytes, part: str) -> dict[str, Any]:
    try:
        value = loads(octets.decode())
    except (UnicodeDecodeError, JsonError) as error:
        raise _malformed(f"Jwt {part} is an invalid JSON") from error
    if not isinstance(value, dict):
        raise _malformed(f"Jwt {part} is an invalid JSON")
    return value


def _head(segment: bytes) -> Head:
    header = _json_object(_octets(segment, "header"), "header")
    return Head(segment, header, _algorithm(header), _kid(header))


def _algorithm(header: Mapping[str, Any]) -> str:
    algorithm = header.get("alg")
    if not isinstance(algorithm, str):
        raise TokenError(Reason.TOKEN_ALGORITHM, "Jwt header [alg] field is required and must be a string")
    if algorithm not in ALGORITHMS:
        raise TokenError(Reason.TOKEN_ALGORITHM, "Jwt header [alg] is not supported")
    return algorithm


def _kid(header: Mapping[str, Any]) -> str:
    kid = header.get("kid", "")
    if not isinstance(kid, str):
        raise _malformed("Jwt header [kid] field is not a string")
    return kid


def _check_registered_claims(payload: Mapping[str, Any]) -> None:
    """RFC 7519 4.1, in the order in which Envoy reports."""
    get = payload.get
    for claim in ("iss", "sub"):
        if not isinstance(get(claim, ""), str):
            raise _malformed(f"Jwt payload [{claim}] field is not a string")
    for claim in ("iat", "nbf", "exp"):
        value = get(claim, 0)
        if type(value) is not int and type(value) is not float:  # a bool is neither
            raise _malformed(f"Jwt payload [{claim}] field is not an integer")
        if not 0 <= value < _TWO_TO_THE_64:
            raise _malformed(f"Jwt payload [{claim}] field is not a positive 64 bit integer")
    if not isinstance(get("jti", ""), str):
        raise _malformed("Jwt payload [jti] field is not a string")
    audience = get("aud", "")
    if not isinstance(audience, str) and not (
        isinstance(audience, list) and all(isinstance(entry, str) for entry in audience)
    ):
        raise _malformed("Jwt payload [aud] field is not a string or string list")
