"""What a rule judges, and how a term of a rule becomes a test of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from countersign.core.facts import RequestFacts
from countersign.core.identity import Identity
from countersign.core.per_check import per_check
from countersign.core.posture import Posture
from countersign.policy.match import Outcome
from countersign.policy.resources import Action, Term

ABSENT: Final = "absent"

_T = TypeVar("_T")


@per_check
class Evidence:
    """What Envoy said, what was proven, and how to read it. ``remote_ip`` is the client's, before trusted proxies."""

    facts: RequestFacts
    identity: Identity
    posture: Posture
    trust_domains: tuple[str, ...]
    remote_ip: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What is known of a term before any request: whose policy it serves, and how this mesh reads requests."""

    action: Action
    namespace: str  # the policy's own
    posture: Posture
    trust_domains: tuple[str, ...]


Judge = Callable[[Evidence], Outcome]
Prepare = Callable[[Term, Context], Judge]  # whether any value of a (not yet negated) term matches
Got = Callable[[Term, Evidence], str]  # what the request has, for people
Check = Callable[[str], str]  # what is wrong with a value; empty if nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribute:
    """Something a rule can ask about. ``http`` ones do not exist on a TCP connection."""

    prepare: Prepare
    got: Got
    check: Check = lambda _: ""
    takes_argument: bool = False
    http: bool = False


def matched(found: bool) -> Outcome:  # noqa: FBT001 (the one thing it is about)
    """A plain yes or no as an outcome."""
    return Outcome.MATCH if found else Outcome.NO_MATCH


def any_test(tests: Sequence[Callable[[_T], bool]]) -> Callable[[_T], bool]:
    """Whether a value passes any of the tests."""
    if len(tests) == 1:
        return tests[0]

    def passes(value: _T) -> bool:
        for test in tests:  # noqa: SIM110 (`any` costs a generator for each request)
            if test(value):
                return True
        return False

    return passes
