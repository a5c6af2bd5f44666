"""What a text says that may be a token: for people to look at, and never for a decision."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from countersign.tokens.jose import Base64Error, TokenError, UnverifiedToken, decode_base64url, parse
from countersign.tokens.strict_json import JsonError, loads

_MAX_LENGTH: Final = 1024 * 1024  # characters that are looked at, where `parse` refuses far fewer


@dataclass(frozen=True, slots=True, kw_only=True)
class Peeked:
    """``header`` and ``claims`` are what could be read, None where nothing could.

    Either the text is a ``token`` that may be verified, or ``error`` says why nothing verifies it.
    """

    header: Mapping[str, Any] | None
    claims: Mapping[str, Any] | None
    token: UnverifiedToken | None
    error: TokenError | None


def peek(text: str) -> Peeked:
    """Read as much of the text as there is. Nothing is raised, and nothing is proven."""
    try:
        token = parse(text)
    except TokenError as error:
        segments = [*text[:_MAX_LENGTH].split(".", 2), "", ""]
        return Peeked(header=_members(segments[0]), claims=_members(segments[1]), token=None, error=error)
    return Peeked(header=token.head.members, claims=token.payload, token=token, error=None)


def _members(segment: str) -> Mapping[str, Any] | None:
    try:
        value = loads(decode_base64url(segment).decode())
    except (Base64Error, UnicodeDecodeError, JsonError):
        return None
    return value if isinstance(value, dict) else None
