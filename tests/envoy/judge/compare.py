"""When two answers agree: to the letter in posture `istio`; in `strict`, or harsher where a request is ambiguous."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from tests.envoy.judge.arena import Verdict
from tests.envoy.judge.cases import Case
from tests.envoy.judge.differences import canonical, is_known, without_query
from tests.envoy.judge.peers import NATIVE
from tests.envoy.judge.policy_set import PolicySet

# An unreserved character, a slash or a backslash, encoded; an encoded NUL; and what is no escape at all.
_ENCODED: Final = re.compile(
    r"%(?:2[def]|3[0-9]|4[1-9a-f]|5[0-9acf]|6[1-9a-f]|7[0-9ae]|00)|%(?![0-9a-f]{2})", re.IGNORECASE
)
_DOTS: Final = re.compile(r"/\.{1,2}(?:/|\Z)")
_VISIBLE: Final = re.compile(r"[\x21-\x7e]*")
_PORT: Final = re.compile(r":[0-9]*\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Disagreement:
    """Countersign in one posture, against Envoy."""

    posture: str
    policies: PolicySet
    case: Case
    native: Verdict
    countersign: Verdict


def disagreements(policies: PolicySet, case: Case, verdicts: Mapping[str, Verdict]) -> list[Disagreement]:
    """Where Countersign must answer otherwise."""
    native = without_query(verdicts[NATIVE])
    found = []
    for posture in ("istio", "strict"):
        own = verdicts[posture]
        agrees = _same(native, own) or is_known(native, own, policies, case)
        if posture == "strict" and not agrees:
            agrees = not own.allowed and own.status not in (0, 500) and is_ambiguous(case)
        if not agrees:
            found.append(Disagreement(posture=posture, policies=policies, case=case, native=native, countersign=own))
    return found


def is_ambiguous(case: Case) -> bool:
    """Whether readers may differ about a request: the reasons for which `strict` may be harsher."""
    request = case.request
    path = re.split(r"[?#]", request.path, maxsplit=1)[0]
    names = [name.lower() for name, _ in request.headers]
    forwarded = [each for name, value in request.headers if name == "x-forwarded-for" for each in value.split(",")]
    return (
        any(token.ambiguous for token in case.tokens)
        or len(set(names)) != len(names)
        or not all(value.isascii() for _, value in request.headers)
        or "//" in path
        or any(character in path for character in ";\\")
        or _DOTS.search(path) is not None
        or _ENCODED.search(path) is not None
        or _VISIBLE.fullmatch(path) is None
        or not all(map(_is_one_address, forwarded))
        or not request.host
        or request.host.endswith(".")
        or _PORT.search(request.host) is not None
    )


def _is_one_address(text: str) -> bool:
    """An IPv4-mapped IPv6 address is two."""
    try:
        return getattr(ip_address(text.strip()), "ipv4_mapped", None) is None
    except ValueError:
        return False


def _same(native: Verdict, own: Verdict) -> bool:
    if native.received is None or own.received is None:
        return native == own
    return list(map(canonical, native.received)) == list(map(canonical, own.received))
