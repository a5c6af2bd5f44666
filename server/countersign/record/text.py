"""Text that a client has chosen, made fit for a log: short, without credentials, and one line whatever is in it."""

import json
import re
from collections.abc import Mapping
from typing import Any, Final

LONGEST: Final = 256  # characters of one value
_READ: Final = 8192  # characters that are looked at; Envoy lets a path of 60 KiB through

_QUERY: Final = re.compile(r"[?#].*|%3f.*|%23.*", re.DOTALL | re.IGNORECASE)
_PARAMETER: Final = re.compile(r"(;|%3b)[^/]*", re.IGNORECASE)  # RFC 3986 3.3; `;jsessionid=...` is a credential
_TOKEN: Final = re.compile(r"eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)*")  # base64url of `{"`: a JWS or JWE
_HIDDEN: Final = "[token]"

_encode: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode


def plain(text: str) -> str:
    """The first `LONGEST` characters; what looks like a JWT, and octets that are no UTF-8, are named instead."""
    text = text[:_READ]
    if "eyJ" in text:
        text = _TOKEN.sub(_HIDDEN, text)
    if len(text) > LONGEST:
        text = f"{text[: LONGEST - 1]}…"
    if not text.isascii():  # PEP 383: a lone surrogate is an octet, and no text
        text = text.encode("utf-8", "backslashreplace").decode()
    return text


def path_of(target: str) -> str:
    """The path of a request's target: without query and fragment, and of path parameters only that there are some."""
    path = _QUERY.sub("", target[:_READ])
    return plain(_PARAMETER.sub(r"\1", path))


def line_of(record: Mapping[str, Any]) -> bytes:
    """One line without its end, in ASCII: controls and all beyond ASCII, bidirectional marks included, as escapes."""
    return _encode(record).encode("ascii")
