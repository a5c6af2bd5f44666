"""A claim as Envoy writes it into a header: `addJWTClaimToHeader` in jwt_authn/authenticator.cc, octet for octet.

Envoy holds claims as a protobuf Struct. So every number is a double, and lists and objects are written by protobuf's
JSON printer (google/protobuf/json/internal/writer.cc), which escapes more than JSON asks for.
"""

import base64
import re
from functools import lru_cache
from typing import Final

_UINT64: Final = 2.0**64
_NAMED: Final = {"\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r", '"': '\\"', "\\": "\\\\"}
# Measured with every code point, Envoy 1.40: controls, angle brackets, and what shows nothing or turns text around.
_ESCAPED: Final = re.compile(
    r'["\\<>\x00-\x1f\x7f-\x9f\xad\u0600-\u0603\u06dd\u070f\u17b4\u17b5\u200b-\u200f\u2028-\u202e\u2060-\u2064'
    r"\u206a-\u206f\ufeff\ufff9-\ufffb\U0001d173-\U0001d17a\U000e0001\U000e0020-\U000e007f]"
)


def claim_text(claim: object) -> str:
    """The text of a claim; empty if it is not written: absent, null or an empty string."""
    match claim:
        case str():
            return claim
        case bool():
            return "true" if claim else "false"
        case int() | float():
            number = float(claim)
            whole = number.is_integer() and 0 <= number < _UINT64
            return str(int(number)) if whole else f"{number:f}"
        case dict() | list():
            return base64.b64encode(_json(claim).encode()).decode()
        case _:
            return ""


@lru_cache(maxsize=1024)
def claim_path(written: str) -> tuple[str, ...]:
    """The names that lead to a claim: ``a.b`` is ``b`` in ``a``, as in Istio, and ``[a.b][c]`` is ``c`` in ``a.b``.

    The second form is ours, after Istio's ``request.auth.claims[a.b][c]``: a name with a dot has no other.
    """
    if written.startswith("[") and written.endswith("]"):
        return tuple(written[1:-1].split("]["))
    return tuple(written.split("."))


def _json(value: object) -> str:
    match value:
        case str():
            return f'"{_ESCAPED.sub(_escape, value)}"'
        case None | bool():
            return "null" if value is None else "true" if value else "false"
        case int() | float():
            return _number(float(value))
        case dict():
            return f"{{{','.join(f'{_json(name)}:{_json(each)}' for name, each in value.items())}}}"
        case list():
            return f"[{','.join(map(_json, value))}]"
        case _:
            raise AssertionError("unreachable: JSON has no other values")


def _number(number: float) -> str:
    """As protobuf's SimpleDtoa: 15 digits if they are enough, else 17."""
    short = f"{number:.15g}"
    return short if float(short) == number else f"{number:.17g}"


def _escape(found: re.Match[str]) -> str:
    character = found[0]
    named = _NAMED.get(character)
    if named:
        return named
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
