"""What a rule wanted and what the request had, field by field: the record that every explanation is made from."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain

from countersign.core.decision import PolicyRef
from countersign.policy.match import Outcome
from countersign.policy.resources import Action


@dataclass(frozen=True, slots=True, kw_only=True)
class TermTrace:
    """One field: what was wanted (or, negated, what was not), what the request has, and whether that matches."""

    field: str
    negated: bool
    wanted: tuple[str, ...]
    got: str
    outcome: Outcome
    source: str


ClauseTrace = tuple[TermTrace, ...]  # one source, operation or condition


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleTrace:
    """One rule: its outcome and, part by part, every source, operation and condition."""

    policy: PolicyRef
    action: Action
    outcome: Outcome
    sources: tuple[ClauseTrace, ...]
    operations: tuple[ClauseTrace, ...]
    conditions: tuple[ClauseTrace, ...]

    @property
    def terms(self) -> ClauseTrace:
        """Every field of the rule, in the order of the file."""
        return tuple(chain.from_iterable(chain(self.sources, self.operations, self.conditions)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Miss:
    """A rule that did not match, and the fields that kept it from matching."""

    rule: RuleTrace
    terms: ClauseTrace


def nearest(rules: Iterable[RuleTrace]) -> Miss | None:
    """The ALLOW rule that came closest: one that could not be read, else the one with the fewest fields in the way.

    Of equals the one with more fields that did match, then the first. None if no ALLOW rule was asked.
    """
    misses = [
        Miss(rule=rule, terms=_in_the_way(rule))
        for rule in rules
        if rule.action is Action.ALLOW and rule.outcome is not Outcome.MATCH
    ]
    return min(misses, key=lambda miss: (-miss.rule.outcome, len(miss.terms), -_matching(miss.rule)), default=None)


def _matching(rule: RuleTrace) -> int:
    return sum(term.outcome is Outcome.MATCH for term in rule.terms)


def _in_the_way(rule: RuleTrace) -> ClauseTrace:
    """What would have to change: in the best source, in the best operation, in every condition."""
    return (*_best(rule.sources), *_best(rule.operations), *_failing(chain.from_iterable(rule.conditions)))


def _best(clauses: tuple[ClauseTrace, ...]) -> ClauseTrace:
    return min((_failing(clause) for clause in clauses), key=len, default=())


def _failing(terms: Iterable[TermTrace]) -> ClauseTrace:
    return tuple(term for term in terms if term.outcome is not Outcome.MATCH)
