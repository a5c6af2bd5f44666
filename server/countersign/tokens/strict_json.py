"""JSON with one reading only: RFC 8259, UTF-8, no duplicate names, no NaN, and bounds on everything.

Two parsers that read the same octets differently are how a token says one thing to a verifier and another to a
service. So whatever is doubtful is refused, at any depth.
"""

import json
import math
from collections.abc import Iterable
from itertools import chain
from typing import Any, Final

MAX_DEPTH: Final = 32  # protobuf's Struct, which Envoy uses, ends at about 50 levels
MAX_MEMBERS: Final = 256  # of one object
MAX_ELEMENTS: Final = 1024  # of one array
MAX_DIGITS: Final = 19  # of one integer: below 2^64


class JsonError(ValueError):
    """The text is no JSON with exactly one reading within the bounds. ``place`` says where, if it is no JSON at all."""

    def __init__(self, what: str, place: str = "") -> None:
        super().__init__(what)
        self.place = place


def loads(text: str) -> Any:  # noqa: ANN401 (JSON is what it is)
    """Parse a whole JSON text. Raise `JsonError`."""
    try:
        value = _DECODER.decode(text)
    except JsonError:
        raise
    except json.JSONDecodeError as at:
        raise JsonError("not JSON", f"line {at.lineno}, column {at.colno}: {at.msg}") from at
    except (ValueError, RecursionError) as error:
        raise JsonError("not JSON") from error
    # Only a text with that many brackets, commas or an escape can break these bounds: most skip the walk.
    if text.count("[") + text.count("{") > MAX_DEPTH or text.count(",") >= MAX_ELEMENTS or "\\u" in text:
        _check(value)
    return value


def _check(value: object) -> None:
    level, depth = [value], 0
    while level:
        _check_texts(each for each in level if isinstance(each, str))
        containers = [each for each in level if isinstance(each, (dict, list))]
        if containers and depth == MAX_DEPTH:
            raise JsonError(f"nested deeper than {MAX_DEPTH}")
        level = [child for container in containers for child in _children(container)]
        depth += 1


def _children(container: dict[str, object] | list[object]) -> Iterable[object]:
    if isinstance(container, dict):
        return chain(container.keys(), container.values())
    if len(container) > MAX_ELEMENTS:
        raise JsonError(f"an array of more than {MAX_ELEMENTS} elements")
    return container


def _check_texts(texts: Iterable[str]) -> None:
    try:
        "".join(texts).encode()
    except UnicodeEncodeError as error:  # "\ud800" is not text, and raises where somebody encodes it later
        raise JsonError("half of a surrogate pair") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > MAX_MEMBERS:
        raise JsonError(f"an object of more than {MAX_MEMBERS} members")
    members = dict(pairs)
    if len(members) != len(pairs):
        raise JsonError("a name twice in one object")
    return members


def _integer(digits: str) -> int:
    if len(digits) - digits.startswith("-") > MAX_DIGITS:
        raise JsonError(f"an integer of more than {MAX_DIGITS} digits")
    return int(digits)


def _float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise JsonError("a number beyond all range")
    return number


def _refuse_constant(name: str) -> None:
    raise JsonError(f"{name} is not JSON")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_refuse_constant
)
