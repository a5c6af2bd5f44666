"""The x-forwarded-client-cert header, text and JSON form: all of it parses, or none of it counts.

Envoy writes ``By``, ``URI`` and ``DNS`` unquoted and unescaped (envoyproxy/envoy issue 32945), so a hostile SAN
can add pairs and elements; and under APPEND_FORWARD the client chooses everything left of the last element, the
form included. So: the whole grammar, one ``Hash``, and the caller decides which element may speak.
Source: Envoy's HTTP header manipulation, x-forwarded-client-cert; conn_manager_utility.cc.
"""

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

MAX_LENGTH: Final = 64 * 1024  # Envoy's own default for all request headers is 60 KiB
_SHORT: Final = 4096  # characters: more than a chain of hops without certificates
MAX_ELEMENTS: Final = 16  # one element a hop; more is an attack on the reader, not a mesh

# Printable ASCII, and outside quotes none of the delimiters. Possessive by construction: no two alternatives overlap.
_PAIR: Final = re.compile(
    r'([A-Za-z]+)=(?:"((?:[^"\\\x00-\x1f\x7f-\U0010ffff]|\\[\x20-\x7e])*)"|([^",;=\\\x00-\x20\x7f-\U0010ffff]*))'
    r"(;|, ?|\Z)"
)
_ESCAPE: Final = re.compile(r"\\(.)")
_REPEATABLE: Final = frozenset({"by", "uri", "dns"})
_ONCE: Final = frozenset({"hash", "cert", "chain", "subject", "issuer"})


class XfccError(ValueError):
    """The header is not what an Envoy writes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCert:
    """One element: one hop's client certificate. ``uris`` is None if the element does not speak of URIs at all."""

    by: tuple[str, ...] = ()
    hash: str = ""
    uris: tuple[str, ...] | None = None
    dns: tuple[str, ...] = ()
    subject: str = ""
    cert: str = ""
    chain: str = ""
    issuer: str = ""


def parse(value: str) -> tuple[ClientCert, ...]:
    """Parse a header value, oldest hop first; empty gives no element. Raise `XfccError` for anything doubtful."""
    return _remembered(value) if len(value) <= _SHORT else _parsed(value)


def _parsed(value: str) -> tuple[ClientCert, ...]:
    if len(value) > MAX_LENGTH:
        raise XfccError(f"longer than {MAX_LENGTH} characters")
    if not value:
        return ()
    if value.startswith("["):
        return _parse_json(value)
    return _parse_text(value)


# A peer's header is the same for each of its requests. What is refused is not remembered.
_remembered: Final = lru_cache(maxsize=1024)(_parsed)


def _parse_text(value: str) -> tuple[ClientCert, ...]:
    elements: list[ClientCert] = []
    pairs: list[tuple[str, str]] = []
    at = 0
    while True:
        match = _PAIR.match(value, at)
        if match is None:
            raise XfccError(f"no key=value pair at character {at}")
        key, quoted, plain, delimiter = match.groups()
        pairs.append((key.lower(), plain if quoted is None else _ESCAPE.sub(r"\1", quoted)))
        at = match.end()
        if delimiter == ";":
            continue
        elements.append(_element(pairs))
        pairs = []
        if not delimiter:
            return tuple(elements)
        if len(elements) == MAX_ELEMENTS:
            raise XfccError(f"more than {MAX_ELEMENTS} elements")


def _element(pairs: list[tuple[str, str]]) -> ClientCert:
    once: dict[str, str] = {}
    repeated: dict[str, list[str]] = {}
    for key, value in pairs:
        if key in _REPEATABLE:
            repeated.setdefault(key, []).append(value)
        elif key not in _ONCE:
            raise XfccError("unknown key")
        elif key in once:
            raise XfccError(f"`{key}` twice in one element")
        else:
            once[key] = value
    uris = repeated.get("uri")
    return ClientCert(
        by=tuple(repeated.get("by", ())),
        uris=None if uris is None else tuple(uris),
        dns=tuple(repeated.get("dns", ())),
        **once,
    )


def _parse_json(value: str) -> tuple[ClientCert, ...]:
    try:
        array = json.loads(value, object_pairs_hook=_object, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise XfccError("not JSON") from error
    if not isinstance(array, list) or not array:
        raise XfccError("not a JSON array of elements")
    if len(array) > MAX_ELEMENTS:
        raise XfccError(f"more than {MAX_ELEMENTS} elements")
    return tuple(_json_element(element) for element in array)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise XfccError("a key twice in one object")
    return members


def _refuse_constant(name: str) -> None:
    raise XfccError(f"{name} is not JSON")


def _json_element(element: object) -> ClientCert:
    if not isinstance(element, dict) or not element:
        raise XfccError("an element that is not an object with members")
    pairs: list[tuple[str, str]] = []
    for key, value in element.items():
        values = value if key in _REPEATABLE and isinstance(value, list) else [value]
        for text in values or [""]:  # an empty list of URIs says that there is none, as `URI=` does
            if not isinstance(text, str) or not text.isprintable() or not text.isascii():
                raise XfccError("a value that is not printable text")
            pairs.append((key, text))
    return _element(pairs)
