"""The engine that serves: the meaning of `spec`, prepared once per workload.

Every list of rules has an index (`index.RuleIndex`) that names, for a request, the few rules that could match it, in
the order of their ids; the others cost nothing. Every term of a rule that is asked is a closure. Tests hold both
engines equal on random policies and requests: decision, policy, audit, dry run.
"""

from dataclasses import dataclass

from countersign.core.decision import AllowReason, DryRun, PolicyRef, Reason
from countersign.core.per_check import per_check
from countersign.core.posture import Posture
from countersign.policy.actions import PoliciesByAction
from countersign.policy.index import FEW, RuleIndex
from countersign.policy.match import Outcome, negate
from countersign.policy.resources import AuthorizationPolicy, Clause, Rule, Term
from countersign.policy.spec import in_order
from countersign.policy.terms.attributes import ATTRIBUTES
from countersign.policy.terms.evidence import Context, Evidence, Judge


@per_check
class Verdict:
    """What the policies say, without the trace (`spec.Evaluation` has it)."""

    outcome: AllowReason | Reason
    policy: PolicyRef | None
    audit: PolicyRef | None
    dry_run: DryRun | None


@dataclass(frozen=True, slots=True)
class _CompiledRule:
    policy: PolicyRef
    judge: Judge


class _Rules:
    """All rules of one action, in order, with their index. A rule is compiled when it is a candidate first.

    Those that are candidates of every request are compiled beforehand. Most others never are: they cost their place
    in the index. Two threads may compile the same rule, to the same effect.
    """

    def __init__(
        self, policies: tuple[AuthorizationPolicy, ...], posture: Posture, trust_domains: tuple[str, ...], few: int
    ) -> None:
        self._posture = posture
        self._trust_domains = trust_domains
        self._pairs = in_order(policies)
        self._index = RuleIndex([rule for _, rule in self._pairs], trust_domains, few)
        self._compiled: list[_CompiledRule | None] = [None] * len(self._pairs)
        for position in self._index.always:
            self._compile(position)

    def first(self, evidence: Evidence, at_least: Outcome) -> PolicyRef | None:
        """The first rule whose outcome is at least this."""
        compiled = self._compiled
        for position in self._index.candidates(evidence):
            rule = compiled[position] or self._compile(position)
            if rule.judge(evidence) >= at_least:
                return rule.policy
        return None

    def _compile(self, position: int) -> _CompiledRule:
        policy, rule = self._pairs[position]
        found = self._compiled[position] = _rule(policy, rule, self._posture, self._trust_domains)
        return found


class CompiledPolicies:
    """The policies of one workload, ready to judge. Lists of more than ``few`` rules are looked up by index."""

    def __init__(
        self, policies: PoliciesByAction, posture: Posture, trust_domains: tuple[str, ...], few: int = FEW
    ) -> None:
        def rules(of: tuple[AuthorizationPolicy, ...]) -> _Rules:
            return _Rules(of, posture, trust_domains, few)

        self._custom = rules(policies.custom)
        self._audit = rules(policies.audit)
        self._deny = rules(policies.deny)
        self._allow = rules(policies.allow) if policies.allow else None
        self.asks_custom = bool(policies.custom)
        self._audits = bool(policies.audit)
        self._tried: CompiledPolicies | None = None
        if policies.tried:
            self._tried = CompiledPolicies(policies.as_if_enforced(), posture, trust_domains, few)

    def custom(self, evidence: Evidence) -> PolicyRef | None:
        """The first CUSTOM rule that matches or cannot be read."""
        return self._custom.first(evidence, Outcome.UNREADABLE)

    def evaluate(self, evidence: Evidence) -> Verdict:
        """Decide by DENY, then by ALLOW policies; see `spec.evaluate`."""
        outcome, policy = self._decide(evidence)
        dry_run = None
        if self._tried is not None:
            would, by = self._tried._decide(evidence)  # noqa: SLF001 (its own kind)
            dry_run = DryRun(reason=would, policy=by)
        audit = self._audit.first(evidence, Outcome.UNREADABLE) if self._audits else None
        return Verdict(outcome=outcome, policy=policy, audit=audit, dry_run=dry_run)

    def _decide(self, evidence: Evidence) -> tuple[AllowReason | Reason, PolicyRef | None]:
        denied_by = self._deny.first(evidence, Outcome.UNREADABLE)
        if denied_by is not None:
            return Reason.DENY_RULE_MATCHED, denied_by
        if self._allow is None:
            return AllowReason.NO_ALLOW_POLICY, None
        allowed_by = self._allow.first(evidence, Outcome.MATCH)
        if allowed_by is not None:
            return AllowReason.RULE_MATCHED, allowed_by
        return Reason.NO_ALLOW_RULE_MATCHED, None


def _rule(policy: AuthorizationPolicy, rule: Rule, posture: Posture, trust_domains: tuple[str, ...]) -> _CompiledRule:
    context = Context(
        action=policy.action, namespace=policy.meta.namespace, posture=posture, trust_domains=trust_domains
    )
    parts = [_clause(clause, context) for clause in rule.conditions]
    alternatives = (clauses for clauses in (rule.operations, rule.sources) if clauses)
    parts += [_any_of([_clause(clause, context) for clause in clauses]) for clauses in alternatives]
    return _CompiledRule(PolicyRef(id=policy.rule_id(rule), source=rule.source), _all_of(parts))


def _clause(clause: Clause, context: Context) -> Judge:
    return _all_of([_term(term, context) for term in clause])


def _term(term: Term, context: Context) -> Judge:
    judge = ATTRIBUTES[term.attribute].prepare(term, context)
    return (lambda evidence: negate(judge(evidence))) if term.negated else judge


def _all_of(judges: list[Judge]) -> Judge:
    """AND: the minimum, and no judge is asked once it is known to be the least."""
    return _fold(judges, Outcome.MATCH, Outcome.NO_MATCH)


def _any_of(judges: list[Judge]) -> Judge:
    """OR: the maximum, likewise."""
    return _fold(judges, Outcome.NO_MATCH, Outcome.MATCH)


def _fold(judges: list[Judge], start: Outcome, end: Outcome) -> Judge:
    """From ``start``, ends at ``end``; between them is what cannot be read."""
    if len(judges) == 1:
        return judges[0]
    every = tuple(judges)

    def judge(evidence: Evidence) -> Outcome:
        outcome = start
        for each in every:
            found = each(evidence)
            if found is end:
                return end
            if found is not start:
                outcome = found
        return outcome

    return judge
