"""Where a request carries tokens for a rule: header, query parameter, cookie, exactly where Envoy looks.

Envoy, jwt_authn/extractor.cc and common/http/utility.cc. A value that is no token is still found here, because a
request with a broken token is refused and not anonymous.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from countersign.core.facts import HttpRequest
from countersign.core.jwt_rule import HeaderLocation, JwtRule

DEFAULT_HEADER: Final = HeaderLocation("authorization", "Bearer ")
DEFAULT_PARAMETER: Final = "access_token"
COOKIE: Final = "cookie"

_TOKEN_CHARACTER: Final = re.compile(r"[A-Za-z0-9_.-]")


@dataclass(frozen=True, slots=True)
class InHeader:
    """In the (lower-case) header of this name."""

    name: str


@dataclass(frozen=True, slots=True)
class InParameter:
    """In the query parameter of this name."""

    name: str


@dataclass(frozen=True, slots=True)
class InCookie:
    """In the cookie of this name."""

    name: str


@dataclass(frozen=True, slots=True)
class Located:
    """A token, unverified, and where it was."""

    token: str
    where: InHeader | InParameter | InCookie


def locate(http: HttpRequest, rule: JwtRule) -> tuple[Located, ...]:
    """Every token at the rule's locations in Envoy's order: headers by name and prefix, parameters, cookies.

    Envoy verifies from the back, so the first one found is the identity.
    """
    if not (rule.from_headers or rule.from_params or rule.from_cookies):
        return (*_in_header(http, DEFAULT_HEADER), *_in_parameter(http, DEFAULT_PARAMETER))
    return (
        *(found for location in _in_order(rule) for found in _in_header(http, location)),
        *(found for name in sorted(set(rule.from_params)) for found in _in_parameter(http, name)),
        *(found for name in sorted(set(rule.from_cookies)) for found in _in_cookie(http, name)),
    )


def header_locations(rule: JwtRule) -> tuple[HeaderLocation, ...]:
    """The headers at which the rule looks, the default included."""
    if rule.from_headers or rule.from_params or rule.from_cookies:
        return rule.from_headers
    return (DEFAULT_HEADER,)


def _in_order(rule: JwtRule) -> list[HeaderLocation]:
    return sorted(set(rule.from_headers), key=lambda location: location.name + location.prefix)


def _in_header(http: HttpRequest, location: HeaderLocation) -> Iterator[Located]:
    lines = http.headers.values(location.name)
    if len(lines) > 1 and location.name == DEFAULT_HEADER.name:
        lines = (",".join(lines),)  # Envoy joins this one as it arrives, so that two credentials are none
    for value in lines:
        token = value
        if location.prefix:
            at = value.find(location.prefix)
            if at < 0:
                continue
            # Characters that cannot be in a token are skipped; if nothing else follows, Envoy takes the whole value.
            start = _TOKEN_CHARACTER.search(value, at + len(location.prefix))
            token = value[start.start() :] if start else value
        yield Located(token, InHeader(location.name))


def _in_parameter(http: HttpRequest, name: str) -> Iterator[Located]:
    query = http.path.partition("?")[2]
    if name not in query and "%" not in query:
        return
    # One pass in C over the whole query: the name may be percent-encoded, and the pairs may be tens of thousands.
    found = re.search(f"(?:^|&){''.join(map(_spellings, name))}(?:=([^&]*))?(?![^&])", query)
    if found:  # the first one counts, and an empty one counts too
        yield Located(unquote(found[1] or ""), InParameter(name))


def _spellings(character: str) -> str:
    encoded = "".join(f"%{octet:02x}" for octet in character.encode())
    return f"(?:{re.escape(character)}|(?i:{encoded}))"


def _in_cookie(http: HttpRequest, name: str) -> Iterator[Located]:
    for line in http.headers.values(COOKIE):
        for pair in line.split(";"):
            written, equals, value = pair.partition("=") if name in pair else ("", "", "")
            if equals and written.lstrip(" ") == name:
                quoted = len(value) > 1 and value[0] == value[-1] == '"'  # RFC 6265 4.1.1
                yield Located(value[1:-1] if quoted else value, InCookie(name))
                return
