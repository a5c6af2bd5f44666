"""The compact form of a JWT, parsed strictly before any cryptography. Nothing here is proven yet.

Statuses, their texts and their order are Envoy's (jwt_verify_lib, jwt.cc and status.cc); where we are stricter, the
nearest status answers. The bounds keep the work before the signature small whatever is sent.
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from countersign.core.decision import Reason
from countersign.tokens.strict_json import JsonError, loads

MAX_LENGTH: Final = 8 * 1024  # characters; a header of Envoy's may have 60 KiB
ALGORITHMS: Final = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
)  # RFC 7518 3.1 and RFC 8037 without `none` and HMAC: a verifier that only has public keys cannot check those

_TWO_TO_THE_64: Final = float(2**64)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class UnverifiedToken:
    """What a token says. ``payload`` has its registered claims of the right type, and that is all that is known.

    ``kid`` is empty if the header names no key, as in Envoy. ``payload_segment`` is as transmitted.
    """

    header: Mapping[str, Any]
    payload: Mapping[str, Any]
    algorithm: str
    kid: str
    payload_segment: str
    signing_input: bytes
    signature: bytes


def parse(token: str) -> UnverifiedToken:
    """Parse a JWS in compact form (RFC 7515 3.1) that carries a JWT claims set. Raise `TokenError`."""
    if len(token) > MAX_LENGTH:
        raise _malformed(f"Jwt is longer than {MAX_LENGTH} characters")
    segments = token.split(".", 3)
    if len(segments) != 3 or not all(segments):  # noqa: PLR2004 (header, payload, signature)
        raise _malformed("Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections")
    header = _json_object(segments[0], "header")
    algorithm, kid = _algorithm(header), _kid(header)
    payload = _json_object(segments[1], "payload")
    _check_registered_claims(payload)
    signature = _octets(segments[2], "signature")
    return UnverifiedToken(
        header=header,
        payload=payload,
        algorithm=algorithm,
        kid=kid,
        payload_segment=segments[1],
        signing_input=token[: -len(segments[2]) - 1].encode("ascii"),
        signature=signature,
    )


def decode_base64url(text: str) -> bytes:
    """Octets of unpadded base64url (RFC 7515 2). Raise `Base64Error` unless the text is their one canonical form.

    Encoding again is what refuses padding, other alphabets, white space and stray bits (RFC 4648 3.5) at once.
    """
    try:
        octets = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        if base64.urlsafe_b64encode(octets).rstrip(b"=") == text.encode("ascii"):
            return octets
    except (binascii.Error, ValueError) as error:
        raise Base64Error("not base64url") from error
    raise Base64Error("not canonical base64url")


def _malformed(text: str) -> TokenError:
    return TokenError(Reason.TOKEN_MALFORMED, text)


def _octets(segment: str, part: str) -> bytes:
    try:
        return decode_base64url(segment)
    except Base64Error as error:
        raise _malformed(f"Jwt {part} is an invalid Base64url encoded") from error


def _json_object(segment: str, part: str) -> dict[str, Any]:
    octets = _octets(segment, part)
    try:
        value = loads(octets.decode())
    except (UnicodeDecodeError, JsonError) as error:
        raise _malformed(f"Jwt {part} is an invalid JSON") from error
    if not isinstance(value, dict):
        raise _malformed(f"Jwt {part} is an invalid JSON")
    return value


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
    for claim in ("iss", "sub"):
        _check_string(payload, claim)
    for claim in ("iat", "nbf", "exp"):
        _check_date(payload, claim)
    _check_string(payload, "jti")
    audience = payload.get("aud", "")
    if not isinstance(audience, str) and not (
        isinstance(audience, list) and all(isinstance(entry, str) for entry in audience)
    ):
        raise _malformed("Jwt payload [aud] field is not a string or string list")


def _check_string(payload: Mapping[str, Any], claim: str) -> None:
    if not isinstance(payload.get(claim, ""), str):
        raise _malformed(f"Jwt payload [{claim}] field is not a string")


def _check_date(payload: Mapping[str, Any], claim: str) -> None:
    value = payload.get(claim, 0)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _malformed(f"Jwt payload [{claim}] field is not an integer")
    if not 0 <= value < _TWO_TO_THE_64:
        raise _malformed(f"Jwt payload [{claim}] field is not a positive 64 bit integer")
