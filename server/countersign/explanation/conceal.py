"""What an explanation never shows: tokens and other credentials, and what a terminal would take for commands."""

import re
from typing import Final

from countersign.core.facts import RequestFacts
from countersign.core.identity import XFCC_HEADER
from countersign.policy.terms.evidence import ABSENT

# From the base64 of `{"`, `{ ` or `{` and a new line to the end of the word, whatever is broken in between.
_JWS: Final = re.compile(r"e[wy][A-Za-z0-9_+=-]{4,}\.[^\s\"']+")
_REALM: Final = re.compile(r"\?[^\"]*")
_CREDENTIALS: Final = frozenset(
    {
        "authorization",
        "proxy-authorization",
        "cookie",
        "x-api-key",
        "x-auth-token",
        "x-forwarded-access-token",
        XFCC_HEADER,  # certificates, in PEM
    }
)
_FIELD: Final = re.compile(r"request\.headers\[(.*)\]")

_NOT_SHOWN: Final = "(there, not shown)"


class Concealer:
    """Knows the request and the headers that carry its tokens."""

    def __init__(self, facts: RequestFacts | None, token_headers: frozenset[str]) -> None:
        self._headers = _CREDENTIALS | token_headers
        self._query = facts.http.path.partition("?")[2] if facts and facts.http else ""

    def got(self, field: str, value: str) -> str:
        """What a request has in a field of a rule. Queries carry tokens too, so they are not shown."""
        header = _FIELD.fullmatch(field)
        if header and header[1].lower() in self._headers and value != ABSENT:
            return _NOT_SHOWN
        return self.text(value)

    def text(self, value: str) -> str:
        """Any text in which a part of the request may be."""
        if self._query:
            value = value.replace(f"?{self._query}", "?...")
        return without_tokens(value)

    def answer(self, name: str, value: str) -> tuple[str, str]:
        """A header of an answer; the realm of a challenge repeats the path, cut somewhere in its query."""
        return name, without_tokens(_REALM.sub("?...", value))


def without_tokens(text: str) -> str:
    """The text, everything in it that looks like a token left out."""
    return _JWS.sub("(a token)", text)


def printable(text: str) -> str:
    """The text, with escapes for all that is no visible character: it may come from a client."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
