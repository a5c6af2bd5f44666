"""The definition: what policies mean for a request, written as plainly as possible, with the full trace.

1. A DENY rule that matches, or that cannot be read, denies.
2. Without an ALLOW policy everything else is allowed.
3. An ALLOW rule that matches allows; otherwise the request is denied.

AUDIT policies and policies of a dry run are judged and reported, and change nothing.

Source: istio.io "Authorization Policy", Envoy's RBAC filter; the names of rules sort as in Envoy's policy map.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from countersign.core.decision import AllowReason, DryRun, PolicyRef, Reason
from countersign.core.per_check import per_check
from countersign.policy.actions import PoliciesByAction
from countersign.policy.match import Outcome, both, either, negate
from countersign.policy.resources import AuthorizationPolicy, Clause, Rule, Term
from countersign.policy.terms.attributes import ATTRIBUTES
from countersign.policy.terms.evidence import Context, Evidence
from countersign.policy.trace import RuleTrace, TermTrace, nearest


@per_check
class Evaluation:
    """What the policies say. ``rules`` is the trace: every rule that was asked, up to the one that decided.

    ``audit`` is the first AUDIT rule that matched, the last of ``audit_rules``; ``dry_run`` what the policies that are
    only tried would change, ``tried_rules`` all of their rules.
    """

    outcome: AllowReason | Reason
    policy: PolicyRef | None
    detail: str
    rules: tuple[RuleTrace, ...]
    audit: PolicyRef | None = None
    dry_run: DryRun | None = None
    audit_rules: tuple[RuleTrace, ...] = ()
    tried_rules: tuple[RuleTrace, ...] = ()


def evaluate(policies: PoliciesByAction, evidence: Evidence) -> Evaluation:
    """Decide by DENY, then by ALLOW policies. Total: there is a decision for every input."""
    decided = _decide(policies, evidence)
    audit_rules = _asked(policies.audit, evidence)
    dry_run = None
    if policies.tried:
        would = _decide(policies.as_if_enforced(), evidence)
        dry_run = DryRun(reason=would.outcome, policy=would.policy)
    return replace(
        decided,
        audit=decider(audit_rules),
        dry_run=dry_run,
        audit_rules=audit_rules,
        tried_rules=tuple(_traces(policies.tried, evidence)),
    )


def custom(policies: PoliciesByAction, evidence: Evidence) -> PolicyRef | None:
    """The first CUSTOM rule that matches or cannot be read. It is asked before anybody's token is looked at."""
    return decider(custom_rules(policies, evidence))


def custom_rules(policies: PoliciesByAction, evidence: Evidence) -> tuple[RuleTrace, ...]:
    """The trace of `custom`: every CUSTOM rule that was asked."""
    return _asked(policies.custom, evidence)


def decider(asked: tuple[RuleTrace, ...]) -> PolicyRef | None:
    """The rule at which the asking ended, if one matched or could not be read."""
    return asked[-1].policy if asked and asked[-1].outcome is not Outcome.NO_MATCH else None


def _asked(policies: tuple[AuthorizationPolicy, ...], evidence: Evidence) -> tuple[RuleTrace, ...]:
    asked: list[RuleTrace] = []
    for trace in _traces(policies, evidence):
        asked.append(trace)
        if trace.outcome is not Outcome.NO_MATCH:
            break
    return tuple(asked)


def _decide(policies: PoliciesByAction, evidence: Evidence) -> Evaluation:
    asked: list[RuleTrace] = []
    for trace in _traces(policies.deny, evidence):
        asked.append(trace)
        if trace.outcome is not Outcome.NO_MATCH:
            return _evaluation(Reason.DENY_RULE_MATCHED, trace, asked)
    if not policies.allow:
        return _evaluation(AllowReason.NO_ALLOW_POLICY, None, asked)
    for trace in _traces(policies.allow, evidence):
        asked.append(trace)
        if trace.outcome is Outcome.MATCH:
            return _evaluation(AllowReason.RULE_MATCHED, trace, asked)
    return _evaluation(Reason.NO_ALLOW_RULE_MATCHED, None, asked)


def _traces(policies: tuple[AuthorizationPolicy, ...], evidence: Evidence) -> Iterator[RuleTrace]:
    return (_trace(policy, rule, evidence) for policy, rule in in_order(policies))


def in_order(policies: tuple[AuthorizationPolicy, ...]) -> list[tuple[AuthorizationPolicy, Rule]]:
    """Every rule in the order of Envoy's policy map: by id, as text."""
    pairs = [(policy, rule) for policy in policies for rule in policy.rules]
    return sorted(pairs, key=lambda pair: pair[0].rule_id(pair[1]))


def _evaluation(outcome: AllowReason | Reason, by: RuleTrace | None, asked: list[RuleTrace]) -> Evaluation:
    detail = ""
    if outcome is Reason.DENY_RULE_MATCHED and by is not None and by.outcome is Outcome.UNREADABLE:
        detail = _ambiguity(by.terms)
    elif outcome is Reason.NO_ALLOW_RULE_MATCHED:
        miss = nearest(asked)
        detail = "" if miss is None else _ambiguity(miss.terms) or _difference(miss.rule.policy, miss.terms)
    return Evaluation(outcome=outcome, policy=by.policy if by else None, detail=detail, rules=tuple(asked))


def _ambiguity(terms: Iterable[TermTrace]) -> str:
    fields = [term.field for term in terms if term.outcome is Outcome.UNREADABLE]
    return f"{', '.join(fields)}: read in more than one way, or not at all" if fields else ""


def _difference(policy: PolicyRef, terms: Iterable[TermTrace]) -> str:
    """Names of fields, no values: this goes to access logs, and values may be personal."""
    fields = ", ".join(dict.fromkeys(term.field for term in terms))
    return f"nearest: {policy.id} ({policy.source}), but for {fields}"


def _trace(policy: AuthorizationPolicy, rule: Rule, evidence: Evidence) -> RuleTrace:
    context = Context(
        action=policy.action,
        namespace=policy.meta.namespace,
        posture=evidence.posture,
        trust_domains=evidence.trust_domains,
    )
    parts = [
        tuple(tuple(_term(term, context, evidence) for term in clause) for clause in clauses)
        for clauses in (rule.sources, rule.operations, rule.conditions)
    ]
    sources, operations, conditions = parts
    outcome = both(
        [
            _any_clause(rule.sources, sources),
            _any_clause(rule.operations, operations),
            both(_clause(terms) for terms in conditions),
        ]
    )
    return RuleTrace(
        policy=PolicyRef(id=policy.rule_id(rule), source=rule.source),
        action=policy.action,
        outcome=outcome,
        sources=sources,
        operations=operations,
        conditions=conditions,
    )


def _any_clause(clauses: tuple[Clause, ...], traces: tuple[tuple[TermTrace, ...], ...]) -> Outcome:
    return either(_clause(terms) for terms in traces) if clauses else Outcome.MATCH


def _clause(terms: tuple[TermTrace, ...]) -> Outcome:
    return both(term.outcome for term in terms)


def _term(term: Term, context: Context, evidence: Evidence) -> TermTrace:
    attribute = ATTRIBUTES[term.attribute]
    outcome = attribute.prepare(term, context)(evidence)
    return TermTrace(
        field=term.field,
        negated=term.negated,
        wanted=term.values,
        got=attribute.got(term, evidence),
        outcome=negate(outcome) if term.negated else outcome,
        source=term.source,
    )
