"""Path templates: ``{*}`` is one segment, ``{**}`` any number of them.

Source: Istio ``paths`` (CheckValidPathTemplate, pkg/config/security); Envoy's uri_template matcher, which ends the
process for a template without its first slash, or with an empty segment.
"""

import re
from collections.abc import Callable, Sequence
from typing import Final

_ANY_ONE: Final = "{*}"
_ANY_MANY: Final = "{**}"
# RFC 3986 pchar, escapes included as characters. A `*` in a request counts since CVE-2025-46821.
_PCHAR: Final = r"[a-zA-Z0-9\-._~%!$&'()+,;:@=*]"
_LITERAL: Final = re.compile(r"[a-zA-Z0-9\-._~%!$&'()+,;:@=]*")


def is_template(value: str) -> bool:
    """Whether a value of ``paths`` is a template, not a plain path."""
    return _ANY_ONE in value or _ANY_MANY in value


def template(value: str) -> Callable[[str], bool]:
    """A test of a path without query against a sound template: all of the path must fit."""
    pieces = re.split(r"(\{\*\*?\})", value)
    forms = {_ANY_ONE: f"{_PCHAR}+", _ANY_MANY: f"(?:{_PCHAR}|/)*"}
    pattern = re.compile("".join(forms.get(piece) or re.escape(piece) for piece in pieces))
    return lambda path: pattern.fullmatch(path) is not None


def check_template(value: str) -> str:
    """What is wrong with a value of ``paths``; empty if nothing."""
    if not is_template(value):
        return "`{` and `}` are for path templates, {*} and {**}" if "{" in value or "}" in value else ""
    if not value.startswith("/"):
        return "a template begins with `/`, as every path does"
    *segments, last = value[1:].split("/")
    return "a templated path has no empty segment" if "" in segments else _check_segments([*segments, last])


def _check_segments(segments: Sequence[str]) -> str:
    seen_many = False
    for segment in segments:
        if segment in {_ANY_ONE, _ANY_MANY}:
            if seen_many:
                return f"nothing but literal segments may follow {_ANY_MANY}"
            seen_many = segment == _ANY_MANY
        elif "{" in segment or "}" in segment:
            return f"{_ANY_ONE} and {_ANY_MANY} stand for whole segments"
        elif _LITERAL.fullmatch(segment) is None:
            return f"the segment `{segment}` has a character that a templated path may not have"
    return ""
