"""The hosts a request may mean. Compared in ASCII lower case only: U+212A is not a k here.

Source: RFC 9110 section 4.2.3; Istio ``hosts`` (ASCII case-insensitive, the port is part of the value).
"""

import re
import string
from typing import Final

_FOLD: Final = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
# A name, IPv4 or [IPv6], and a port: no space, control, `/`, `#`, `@`, `,`, `%` or non-ASCII.
_ACCEPTABLE: Final = re.compile(
    r"(?:[A-Za-z0-9._~!$&'()*+;=-]*|\[[0-9A-Fa-f:.]+(?:%25[A-Za-z0-9._~-]+)?\])(?::[0-9]*)?"
)
_PORT: Final = re.compile(r":[0-9]*\Z")


class HostError(ValueError):
    """The host is none that a client has a reason to send."""


def refuse_unacceptable(host: str) -> None:
    """Raise `HostError` unless the host is empty or an authority without user information."""
    if _ACCEPTABLE.fullmatch(host) is None:
        raise HostError("host with a character that no host has")


def fold(host: str) -> str:
    """ASCII lower case."""
    return host.lower() if host.isascii() else host.translate(_FOLD)


def readings(host: str) -> tuple[str, ...]:
    """Every meaning of a folded host: as sent, and without its port, its trailing dot, or both."""
    name = _PORT.sub("", host)
    port = host[len(name) :]
    bare = name.removesuffix(".")
    return tuple(dict.fromkeys((host, *filter(None, (bare + port, name, bare)))))
