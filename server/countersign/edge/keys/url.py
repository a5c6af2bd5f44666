"""The URLs that keys may be fetched from: http or https, a host, no credentials, and nothing to interpret."""

import re
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import IPv6Address
from typing import Final

from countersign.core.jwt_rule import FetchedKeys, RemoteKeys

_URL: Final = re.compile(r"(https?)://([A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?([/?][\x21-\x7e]*)?")
HIDDEN: Final = "REDACTED"
_DIGITS: Final = 8  # of a digest, to tell queries apart
_MAX_LENGTH: Final = 2048
_MAX_PORT: Final = 65535
_WRONG: Final = "not an http or https URL of a host without credentials"


class UrlError(ValueError):
    """The text is no URL that keys may be fetched from."""


@dataclass(frozen=True, slots=True)
class HttpUrl:
    """``text`` is the whole URL, ``host`` without brackets."""

    text: str
    scheme: str
    host: str

    @classmethod
    def parse(cls, text: str) -> "HttpUrl":
        """Read a URL. Raise `UrlError`."""
        match = _URL.fullmatch(text)
        if match is None or len(text) > _MAX_LENGTH or not 0 < int(match[3] or 1) <= _MAX_PORT:
            raise UrlError(_WRONG)
        host = match[2].strip("[]")
        if host != match[2]:
            try:
                IPv6Address(host)
            except ValueError as error:
                raise UrlError(_WRONG) from error
        return cls(text, match[1], host)

    def __str__(self) -> str:
        return self.text


def without_query(url: str) -> str:
    """The URL as it may be shown: there may be a secret in its query."""
    start, question, _ = url.partition("?")
    return f"{start}?{HIDDEN}" if question else start


def shown(source: FetchedKeys) -> str:
    """A source as it is told to whoever asks: sources that differ in their query only are still told apart."""
    start, question, query = str(source).partition("?")
    if not question or not isinstance(source, RemoteKeys):
        return str(source)
    return f"{start}?{HIDDEN}-{sha256(query.encode()).hexdigest()[:_DIGITS]}"
