"""What `token inspect` says of a token: values first, then text for people or JSON for scripts."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from countersign.cli.times import iso, relative
from countersign.core.decision import Reason
from countersign.core.jwt_rule import InlineKeys, JwtRule
from countersign.core.posture import Posture
from countersign.explanation.conceal import printable
from countersign.tokens.jose import TokenError
from countersign.tokens.keys import KeySet
from countersign.tokens.locate import DEFAULT_PARAMETER, header_locations
from countersign.tokens.peek import Peeked
from countersign.tokens.verify import LEEWAY, verify

VERIFIED: Final = "VERIFIED"
REFUSED: Final = "REFUSED"
NOT_CHECKED: Final = "NOT CHECKED"

# What a claim means before its moment, and after it.
_TIMES: Final = {
    "iat": ("will be issued", "issued"),
    "nbf": ("becomes valid", "valid since"),
    "exp": ("expires", "expired"),
    "auth_time": ("will sign in", "signed in"),
}
_NAME: Final = 12  # columns of a claim's name
_NO_KEYS: Final = "no keys were given to verify the signature with; anybody can write such claims"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """The token against one rule, or against keys alone (then ``rule`` and ``source`` are empty).

    ``reason`` is that of the denial; ``locations`` is where the rule looks for its tokens; ``bound`` says that it
    also asks which workload presents them.
    """

    rule: str
    source: str
    issuer: str
    verdict: str
    why: str
    reason: str = ""
    key: str = ""
    thumbprint: str = ""
    locations: tuple[str, ...] = ()
    bound: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """A claim that is a time: what it means, when that is, and how far from now."""

    claim: str
    meaning: str
    time: str
    relative: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What is there, and whether it is true. The signature is no part of it."""

    verdict: str
    why: str
    header: Mapping[str, Any] | None
    claims: Mapping[str, Any] | None
    times: tuple[Moment, ...]
    checks: tuple[Checked, ...]
    notes: tuple[str, ...]


def check(peeked: Peeked, rule: JwtRule, keys: KeySet | None, now: float, posture: Posture) -> Checked:
    """Hold the token against one rule at ``now``, in seconds since the epoch."""
    verdict, why, reason, key, thumbprint = VERIFIED, "", "", "", ""
    try:
        if peeked.token is None:
            raise peeked.error or AssertionError("neither a token nor an error")
        thumbprint = verify(peeked.token, rule, keys, now, posture).key
    except TokenError as error:
        reason, why, verdict = error.reason, f"{error.reason}: {error.text}", REFUSED
        if keys is None and error.reason is Reason.KEYS_UNAVAILABLE and not isinstance(rule.keys, InlineKeys):
            verdict, why = NOT_CHECKED, f"the keys of {rule.keys} were not given; everything else fits"
    if keys is not None and thumbprint:
        key = next(each.kid for each in keys.keys if each.thumbprint == thumbprint)
    return Checked(
        rule=f"RequestAuthentication[{rule.policy}]" if rule.policy else "",
        source=rule.source,
        issuer=rule.issuer,
        verdict=verdict,
        why=why,
        reason=reason if verdict == REFUSED else "",
        key=key,
        thumbprint=thumbprint,
        locations=tuple(_locations(rule)) if rule.policy else (),
        bound=bool(rule.bindings),
    )


def _locations(rule: JwtRule) -> Iterator[str]:
    for header in header_locations(rule):
        yield f"header {header.name}" + (f" after `{header.prefix}`" if header.prefix else "")
    usual = not (rule.from_headers or rule.from_params or rule.from_cookies)
    for name in (DEFAULT_PARAMETER,) if usual else rule.from_params:
        yield f"query parameter {name}"
    for name in rule.from_cookies:
        yield f"cookie {name}"


def report(peeked: Peeked, checks: tuple[Checked, ...], now: float) -> Report:
    """All that is to be said."""
    verdict, why = _verdict(peeked, checks)
    return Report(
        verdict=verdict,
        why=why,
        header=peeked.header,
        claims=peeked.claims,
        times=tuple(_moments(peeked.claims or {}, now)),
        checks=checks,
        notes=tuple(_notes(peeked, checks)),
    )


def _verdict(peeked: Peeked, checks: tuple[Checked, ...]) -> tuple[str, str]:
    if peeked.error is not None:  # nothing verifies it, whatever the keys
        return REFUSED, f"{peeked.error.reason}: {peeked.error.text}"
    for verdict in (VERIFIED, NOT_CHECKED):
        for each in checks:
            if each.verdict == verdict:
                return verdict, each.why or _by(each)
    if checks:
        said = dict.fromkeys(each.why for each in checks)
        return REFUSED, next(iter(said)) if len(said) == 1 else "every rule refuses it, for reasons of its own"
    return NOT_CHECKED, _NO_KEYS


def _by(each: Checked) -> str:
    key = f"key `{each.key}`" if each.key else f"the key without kid, thumbprint {each.thumbprint[:16]}"
    return f"by {key}" + (f", {each.rule} ({each.source})" if each.rule else "")


def _moments(claims: Mapping[str, Any], now: float) -> Iterator[Moment]:
    for claim, (before, after) in _TIMES.items():
        value = claims.get(claim)
        if isinstance(value, int | float) and not isinstance(value, bool):
            meaning = before if value > now else after
            yield Moment(claim=claim, meaning=meaning, time=iso(value), relative=relative(value, now))


def _notes(peeked: Peeked, checks: tuple[Checked, ...]) -> Iterator[str]:
    claims = peeked.claims or {}
    if any(not each.rule and each.verdict == VERIFIED for each in checks):
        yield "issuer and audience were held against nothing: give --policies"
    if any(each.bound and each.verdict != REFUSED for each in checks):
        yield "a rule binds its tokens to a workload: it also depends on who presents this one"
    if "cnf" in claims:
        yield "the token is bound to a certificate or key (cnf): it counts only over that connection"
    if any(claim in claims for claim in ("exp", "nbf")):
        yield f"times count with {LEEWAY} s of leeway"


def as_json(told: Report) -> str:
    """One JSON object."""
    return json.dumps(asdict(told), indent=2)


def as_text(told: Report) -> str:
    """Several lines; claims come from anybody, so that nothing of them reaches a terminal as a command."""
    return "\n".join(map(printable, _lines(told)))


def _lines(told: Report) -> Iterator[str]:
    yield f"{told.verdict}: {told.why}"
    for title, members in (("header", told.header), ("claims", told.claims)):
        yield ""
        yield title
        yield from _members(members)
    if told.times:
        yield ""
        yield "times"
        for at in told.times:
            yield f"  {at.claim:<12}{at.meaning} {at.relative}, {at.time}"
    if any(each.rule for each in told.checks):
        yield ""
        yield "rules"
        for each in told.checks:
            yield f"  {each.verdict:<13}{each.rule} ({each.source}), issuer {each.issuer or '(any)'}"
            yield f"               {each.why or _by(each)}"
            yield f"               looks in {', '.join(each.locations)}"
    for note in told.notes:
        yield ""
        yield f"note: {note}"


def _members(members: Mapping[str, Any] | None) -> Iterator[str]:
    if members is None:
        yield "  (cannot be read)"
        return
    for name, value in members.items():
        yield f"  {name:<{_NAME}}{'' if len(name) < _NAME else ' '}{json.dumps(value, ensure_ascii=False)}"
