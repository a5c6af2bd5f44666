"""Moments and spans, as people write and read them."""

import argparse
from datetime import UTC, datetime
from typing import Final

_UNITS: Final = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))
_YEAR_10000: Final = 253402300800  # seconds since 1970; no calendar goes further


def moment(text: str) -> float:
    """Seconds since 1970, given as such or in ISO 8601. Raise argparse.ArgumentTypeError."""
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise argparse.ArgumentTypeError(f"`{text}` is neither 2026-01-31T12:00:00Z nor seconds since 1970")
    return found.timestamp()


def iso(seconds: float) -> str:
    """ISO 8601 in UTC; beyond the calendar, the number itself."""
    if not 0 <= seconds < _YEAR_10000:
        return f"{seconds:g} s since 1970"
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def span(seconds: float) -> str:
    """The two largest units."""
    rest = int(seconds)
    parts: list[str] = []
    for size, name in _UNITS:
        count, rest = divmod(rest, size)
        if count or (size == 1 and not parts):
            parts.append(f"{count} {name}{'' if count == 1 else 's'}")
    return " ".join(parts[:2])


def relative(seconds: float, now: float) -> str:
    """A moment seen from now."""
    away = int(seconds) - int(now)
    if not away:
        return "now"
    return f"in {span(away)}" if away > 0 else f"{span(-away)} ago"
