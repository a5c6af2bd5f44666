"""An explanation for people: the decision, the steps that led to it, the rules that were asked."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from countersign.explanation.conceal import printable, without_tokens
from countersign.explanation.form import Explanation, Field, Place
from countersign.policy.terms.evidence import ABSENT

_RED, _GREEN, _YELLOW, _BOLD, _DIM = "31", "32", "33", "1", "2"
_COLOURS: Final = {
    "allowed": _GREEN,
    "passed": _GREEN,
    "match": _GREEN,
    "denied": _RED,
    "no match": _RED,
    "unreadable": _YELLOW,
    "not reached": _DIM,
}
_SIGNS: Final = {
    "allowed": "\u2713",
    "passed": "\u2713",
    "match": "\u2713",
    "denied": "\u2717",
    "no match": "\u2717",
    "unreadable": "?",
    "not reached": "-",
}
_PLAIN_SIGNS: Final = _SIGNS | {"allowed": "+", "passed": "+", "match": "+", "denied": "x", "no match": "x"}

_FLAG_OF: Final = {
    "hosts": "--host",
    "ports": "--port",
    "destination.port": "--port",
    "ipBlocks": "--source-ip",
    "source.ip": "--source-ip",
    "remoteIpBlocks": "--source-ip",
    "remote.ip": "--source-ip",
    "destination.ip": "--destination-ip",
    "connection.sni": "--sni",
}


_EMPTY: Final = ("      no conditions: it is for every request",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """What the place where the text goes can show. Only here are escape sequences made."""

    colour: bool = False
    unicode: bool = True

    def paint(self, text: str, code: str) -> str:
        """The text, made harmless, in a colour."""
        shown = printable(text)
        return f"\x1b[{code}m{shown}\x1b[0m" if self.colour and code else shown

    def sign(self, outcome: str) -> str:
        """A mark for an outcome."""
        return self.paint((_SIGNS if self.unicode else _PLAIN_SIGNS)[outcome], _COLOURS[outcome])


def as_text(explained: Explanation, style: Style) -> str:
    """Several lines."""
    blocks = [
        _decision(explained, style),
        _pipeline(explained, style),
        _bindings(explained, style),
        _nearest(explained, style),
        _rules(explained, style),
        _user(explained),
        _changes(explained),
        [style.paint(f"note: {note}", _YELLOW) for note in explained.notes],
    ]
    texts = ("\n".join(lines) for block in blocks if (lines := list(block)))
    return without_tokens("\n\n".join(texts))


def _decision(explained: Explanation, style: Style) -> Iterator[str]:
    colour = _GREEN if explained.decision == "ALLOW" else _RED
    reason = printable(explained.reason + _by(explained.policy))
    yield f"{style.paint(explained.decision, f'{_BOLD};{colour}')} {reason}"
    if explained.detail and explained.nearest is None:
        yield f"  because: {printable(explained.detail)}"
    if explained.response:
        yield f"  the client gets: {explained.response.status} {printable(explained.response.body)}"
        for header in explained.response.headers:
            yield f"                   {printable(f'{header.name}: {header.value}')}"
    elif explained.decision == "DENY":
        yield "  the connection is closed"
    if explained.audit:
        yield f"  audited{printable(_by(explained.audit))}"
    if explained.dry_run:
        would = explained.dry_run
        yield f"  with the policies of the dry run: {would.decision} {printable(would.reason + _by(would.policy))}"


def _by(policy: Place | None) -> str:
    return f" by {policy.id} ({policy.source})" if policy else ""


def _pipeline(explained: Explanation, style: Style) -> Iterator[str]:
    yield style.paint("pipeline", _BOLD)
    width = max(len(step.title) for step in explained.pipeline)
    for step in explained.pipeline:
        decided = "  <- decided here" if step.outcome in {"allowed", "denied"} else ""
        found = step.found if step.outcome != "not reached" else "not reached"
        yield f"  {style.sign(step.outcome)} {step.title:{width}}  {printable(found)}{decided}"


def _bindings(explained: Explanation, style: Style) -> Iterator[str]:
    if explained.bindings:
        yield style.paint("the token is bound to its workload", _BOLD)
        yield from _fields(explained.bindings, style, "  ")


def _nearest(explained: Explanation, style: Style) -> Iterator[str]:
    miss = explained.nearest
    if miss is None:
        return
    yield style.paint(f"nearest rule: {miss.id} ({miss.source}), but for", _BOLD)
    yield from _fields(miss.fields, style, "  ")


def _rules(explained: Explanation, style: Style) -> Iterator[str]:
    if not explained.rules:
        return
    yield style.paint("rules asked", _BOLD)
    for rule in explained.rules:
        only_tried = " (dry run)" if rule.dry_run else ""
        yield f"  {style.sign(rule.outcome)} {rule.action}{only_tried} {printable(rule.id)} ({printable(rule.source)})"
        yield from _fields(rule.fields, style, "      ") if rule.fields else _EMPTY


def _fields(fields: tuple[Field, ...], style: Style, indent: str) -> Iterator[str]:
    several = {field.part for field in fields if field.index}
    for field in fields:
        part = f"{field.part}[{field.index}]" if field.part in several else field.part
        none_of = "none of " if field.negated else ""
        wanted = f"wanted {none_of}{', '.join(field.wanted)}; got {field.got}"
        yield (
            f"{indent}{style.sign(field.outcome)} {printable(f'{part}: {field.field}')}"
            f" {printable(wanted)}{_doubt(field)} {style.paint(f'({field.source})', _DIM)}"
        )


def _doubt(field: Field) -> str:
    if field.outcome != "unreadable":
        return ""
    if field.got == ABSENT:
        name = field.field if field.field in _FLAG_OF else _affirmed(field.field)
        flag = f", {_FLAG_OF[name]} says it" if name in _FLAG_OF else ""
        return f" - not known{flag}; it fires a DENY and satisfies no ALLOW"
    return " - ambiguous: it has more than one reading, or none; it fires a DENY and satisfies no ALLOW"


def _affirmed(field: str) -> str:
    """``notHosts`` is about ``hosts``."""
    return field[3:4].lower() + field[4:] if field.startswith("not") else field


def _user(explained: Explanation) -> Iterator[str]:
    user = explained.user
    if user is not None:
        claims = json.dumps(dict(user.claims), ensure_ascii=False)
        yield f"claims (signature {user.signature}): {printable(claims)}"


def _changes(explained: Explanation) -> Iterator[str]:
    changes = explained.changes
    if changes is None:
        return
    lines = [f"set {header.name}: {header.value}" for header in changes.set_headers]
    lines += [f"remove {name}" for name in changes.remove_headers]
    lines += [f"remove the query parameter {name}" for name in changes.remove_query_parameters]
    if lines:
        yield "before it goes on"
        yield from (f"  {printable(line)}" for line in lines)
