"""The paths a request may mean.

A backend may decode, merge slashes, drop ``;parameters`` and resolve dots before it serves; Envoy does only what its
connection manager is told to. So a path has up to three readings: as sent, and normalised with and without merging.
Source: RFC 3986 sections 3.3, 5.2.4, 6.2.2; Envoy's path_utility.cc; CVE-2021-29492, CVE-2026-73551, CVE-2026-73553.
"""

import re
from functools import lru_cache
from typing import Final

_ORDINARY: Final = re.compile(r"(?:/(?!\.)[^/\\;%]+)*/?")
# Printable ASCII, each `%` with two hex digits, and no encoded NUL.
_ACCEPTABLE: Final = re.compile(r"(?:[\x21-\x24\x26-\x7e]|%(?!00)[0-9A-Fa-f]{2})*")
# RFC 3986 2.3: unreserved characters mean the same encoded or not; `/` and `\` are what attackers encode.
_DECODABLE: Final = re.compile(r"%(2[def]|3[0-9]|4[1-9a-f]|5[0-9acf]|6[1-9a-f]|7[0-9ae])", re.IGNORECASE)
_PARAMETERS: Final = re.compile(r";[^/]*")
_SLASHES: Final = re.compile(r"//+")
_AT_A_TIME: Final = 8  # checks; a path may have 60 KiB


class PathError(ValueError):
    """The path is one that no client has a reason to send."""


def without_query(path: str) -> str:
    """The path up to its first ``?`` or ``#``, as Istio's ``paths`` are matched."""
    return path.partition("?")[0].partition("#")[0]


def refuse_unacceptable(path: str) -> None:
    """Raise `PathError` for a path (query included) that is not a path of printable ASCII with sound escapes.

    An empty path (CONNECT) and ``*`` (OPTIONS) pass: they are requests, just not for a path.
    """
    path = without_query(path)
    if path and path != "*" and not path.startswith("/"):
        raise PathError("path does not start with a slash")
    if _ACCEPTABLE.fullmatch(path) is None:
        raise PathError("path with a control or non-ASCII character, an encoded NUL or a broken escape")


@lru_cache(_AT_A_TIME)
def meanings(path: str) -> tuple[str, ...]:
    """The `readings` of a path that may have a query; none of an empty one. Each rule of a check asks for them."""
    path = without_query(path)
    return readings(path) if path else ()


def readings(path: str) -> tuple[str, ...]:
    """Every meaning of a path without query: as sent and, where they differ, normalised in the two usual ways."""
    if _ORDINARY.fullmatch(path) is not None:
        return (path,)
    return tuple(dict.fromkeys((path, normalise(path), normalise(path, merge_slashes=False))))


def normalise(path: str, *, merge_slashes: bool = True) -> str:
    """Decode once, fold backslashes, strip parameters, merge slashes, resolve dots: in that order.

    Other escapes stay as they are, so that ``%2561`` never becomes ``a``. Without merging, an empty segment is one
    that ``..`` removes (RFC 3986 5.2.4).
    """
    path = _DECODABLE.sub(lambda match: chr(int(match[1], 16)), path)
    path = _PARAMETERS.sub("", path.replace("\\", "/"))
    if merge_slashes:
        path = _SLASHES.sub("/", path)
    return _resolve_dots(path) if "/." in path else path


def _resolve_dots(path: str) -> str:
    resolved: list[str] = []
    for segment in path.split("/")[1:]:
        if segment == "..":
            del resolved[-1:]
        elif segment != ".":
            resolved.append(segment)
    if path.endswith(("/.", "/..")):
        resolved.append("")
    return "/" + "/".join(resolved)
