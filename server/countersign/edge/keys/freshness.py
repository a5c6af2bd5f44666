"""What an answer's headers say about when to ask again (RFC 9111, RFC 9110 10.2.3)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

_SECONDS: Final = re.compile(r"[0-9]{1,9}")
_MAX_AGE: Final = re.compile(r'max-age="?([0-9]{1,9})"?')
_TOO_MANY_REQUESTS: Final = 429
_UNAVAILABLE: Final = 503
_MAX_VALIDATOR: Final = 512  # characters
_VISIBLE: Final = re.compile(r"[\x20-\x7e]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Freshness:
    """``max_age``: seconds that the answer stays good, None if it does not say. ``storable``: on a disk too."""

    max_age: float | None = None
    storable: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Validators:
    """What to ask with whether the answer of ``uri`` has changed."""

    uri: str
    etag: str = ""
    last_modified: str = ""


def freshness(headers: Mapping[str, str]) -> Freshness:
    """Read ``Cache-Control`` and ``Age``. ``no-cache`` is an age of 0: it wants to be asked again."""
    directives = [directive.strip() for directive in headers.get("cache-control", "").lower().split(",")]
    storable = "no-store" not in directives
    if not storable or any(directive.partition("=")[0] == "no-cache" for directive in directives):
        return Freshness(max_age=0.0, storable=storable)
    found = [match[1] for directive in directives if (match := _MAX_AGE.fullmatch(directive))]
    if not found:
        return Freshness()
    age = headers.get("age", "").strip()
    passed = float(age) if _SECONDS.fullmatch(age) else 0.0
    return Freshness(max_age=max(min(map(float, found)) - passed, 0.0))  # of several, the soonest (RFC 9111 4.2.1)


def retry_after(status: int, headers: Mapping[str, str], now: float) -> float | None:
    """``Retry-After`` of a 429 or 503 in seconds from ``now`` (since the epoch); None if there is none to be read."""
    text = headers.get("retry-after", "").strip()
    if status not in (_TOO_MANY_REQUESTS, _UNAVAILABLE) or not text:
        return None
    if _SECONDS.fullmatch(text):
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() - now, 0.0)


def validators(uri: str, headers: Mapping[str, str]) -> Validators | None:
    """``ETag`` and ``Last-Modified``, if there is one that can be sent back."""
    etag, modified = headers.get("etag", ""), headers.get("last-modified", "")
    kept = [text if len(text) <= _MAX_VALIDATOR and _VISIBLE.fullmatch(text) else "" for text in (etag, modified)]
    return Validators(uri=uri, etag=kept[0], last_modified=kept[1]) if any(kept) else None


def conditions(known: Validators | None, uri: str) -> dict[str, str]:
    """The headers that ask only for what has changed; none for another URL than the answer's."""
    if known is None or known.uri != uri:
        return {}
    if known.etag:
        return {"if-none-match": known.etag}
    return {"if-modified-since": known.last_modified}
