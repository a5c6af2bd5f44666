"""A judgement put into words: what each step found, and every rule with what it wanted and what the request had."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from countersign.core.binding import Binding, names_in
from countersign.core.claims import claim_at
from countersign.core.decision import Allow, Decision, DryRun, Mutations, PolicyRef, Reason
from countersign.core.identity import VerifiedToken
from countersign.explanation.conceal import Concealer
from countersign.explanation.form import (
    Changes,
    Explanation,
    Field,
    Header,
    Miss,
    Mtls,
    Place,
    Response,
    RuleLine,
    StepLine,
    Tried,
    User,
    WorkloadFound,
)
from countersign.judgement import Judgement, Step
from countersign.policy.scope import PortMode
from countersign.policy.terms.evidence import ABSENT
from countersign.policy.trace import ClauseTrace, RuleTrace, TermTrace, nearest
from countersign.policy.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is known beside the judgement: how the request reads, what applies, what the reader should know."""

    request: str
    tcp: bool
    mtls: PortMode | None
    signature_checked: bool
    no_user: str  # why there is no user, if there is none
    bindings: tuple[Binding, ...]
    notes: tuple[str, ...]


def explanation(judgement: Judgement, asked: Asked, concealer: Concealer) -> Explanation:
    """Put a judgement into words."""
    decision, workload = judgement.decision, judgement.workload
    allowed = isinstance(decision, Allow)
    rules = _Rules(concealer)
    evaluation = judgement.evaluation
    trace = evaluation.rules if evaluation else ()
    enforced = (*judgement.custom, *(evaluation.audit_rules if evaluation else ()), *trace)
    tried = evaluation.tried_rules if evaluation else ()
    found = Explanation(
        decision="ALLOW" if allowed else "DENY",
        reason=decision.reason,
        detail="" if isinstance(decision, Allow) else concealer.text(decision.detail),
        policy=_place(decision.policy),
        step=_key(judgement.step),
        response=None if asked.tcp else _response(decision, concealer),
        changes=_changes(decision.mutations) if isinstance(decision, Allow) else None,
        pipeline=(),
        workload=_workload(workload) if workload else None,
        peer=str(judgement.peer) if judgement.peer else None,
        mtls=_mtls(asked.mtls),
        user=_user(judgement.token, checked=asked.signature_checked) if judgement.token else None,
        bindings=tuple(_binding(binding, judgement, concealer) for binding in asked.bindings),
        rules=(*map(rules.line, enforced), *(rules.line(rule, dry_run=True) for rule in tried)),
        nearest=rules.miss(trace) if decision.reason is Reason.NO_ALLOW_RULE_MATCHED else None,
        audit=_place(decision.audit),
        dry_run=_tried(decision.dry_run) if decision.dry_run else None,
        notes=asked.notes,
    )
    return replace(found, pipeline=tuple(_pipeline(judgement.step, found, asked)))


def _binding(binding: Binding, judgement: Judgement, concealer: Concealer) -> Field:
    claims = judgement.token.claims if judgement.token else {}
    part = binding.part.of(judgement.peer) if judgement.peer else None
    names = names_in(claim_at(claims, binding.claim))
    return Field(
        part="token",
        index=0,
        field=binding.text,
        negated=False,
        wanted=(part or "a peer that has one",),
        got=concealer.text(", ".join(names)) or ABSENT,
        outcome="match" if part in names else "no match",
        source=binding.source,
    )


def _place(policy: PolicyRef | None) -> Place | None:
    return Place(id=policy.id, source=policy.source) if policy else None


def _workload(workload: Workload) -> WorkloadFound:
    return WorkloadFound(
        namespace=workload.namespace,
        labels=dict(workload.labels),
        gateway=workload.gateway,
        gateway_class=workload.gateway_class,
        services=tuple(map(str, workload.services)),
    )


def _tried(dry_run: DryRun) -> Tried:
    decision = "ALLOW" if dry_run.allowed else "DENY"
    return Tried(decision=decision, reason=dry_run.reason, policy=_place(dry_run.policy))


def _key(step: Step) -> str:
    return step.name.lower()


def _response(decision: Decision, concealer: Concealer) -> Response | None:
    if isinstance(decision, Allow):
        return None
    answers = (concealer.answer(name, value) for name, value in decision.headers)
    headers = tuple(Header(name=name, value=value) for name, value in answers)
    return Response(status=decision.status, body=decision.body, headers=headers)


def _changes(mutations: Mutations) -> Changes:
    return Changes(
        set_headers=tuple(Header(name=name, value=value) for name, value in mutations.set_headers),
        remove_headers=mutations.remove_headers,
        remove_query_parameters=mutations.remove_query_parameters,
    )


def _mtls(port: PortMode | None) -> Mtls | None:
    if port is None:
        return None
    policy = Place(id=f"PeerAuthentication[{port.policy}]", source=port.source) if port.policy else None
    return Mtls(mode=port.mode, policy=policy)


def _user(token: VerifiedToken, *, checked: bool) -> User:
    signature = "verified" if checked else "not checked"
    return User(issuer=token.issuer, subject=token.subject, claims=dict(token.claims), signature=signature)


def _pipeline(decider: Step, found: Explanation, asked: Asked) -> Iterable[StepLine]:
    outcome, decided = "passed", "allowed" if found.decision == "ALLOW" else "denied"
    for step in Step:
        at_decider = step is decider
        said = _found(step, found, asked) if outcome == "passed" else ""
        if at_decider and decided == "denied":
            said = "no ALLOW rule matched" if found.nearest else found.detail or found.reason
        yield StepLine(step=_key(step), title=step, outcome=decided if at_decider else outcome, found=said)
        if at_decider:
            outcome = "not reached"


def _found(step: Step, found: Explanation, asked: Asked) -> str:
    match step:
        case Step.REQUEST:
            return asked.request
        case Step.WORKLOAD:
            return _workload_found(found.workload) if found.workload else ""
        case Step.PEER:
            return f"{found.peer or 'no identity'}{_mtls_found(found.mtls) if found.mtls else ''}"
        case Step.CUSTOM:
            return "no CUSTOM policy matches"
        case Step.TOKEN:
            return _user_found(found.user) if found.user else asked.no_user
        case _:
            return found.reason


def _workload_found(workload: WorkloadFound) -> str:
    labels = ", ".join(f"{name}={value}" for name, value in workload.labels.items())
    gateway = f", gateway {workload.gateway}" if workload.gateway else ""
    of_class = f" of class {workload.gateway_class}" if workload.gateway and workload.gateway_class else ""
    services = f", for {', '.join(workload.services)}" if workload.services else ""
    return f"namespace {workload.namespace}, {labels or 'no labels'}{gateway}{of_class}{services}"


def _mtls_found(mtls: Mtls) -> str:
    return f"; mTLS {mtls.mode}{f' ({mtls.policy.source})' if mtls.policy else ''}"


def _user_found(user: User) -> str:
    return f"{user.subject or 'no subject'} of {user.issuer}, signature {user.signature}"


class _Rules:
    """Rules as lines, with nothing in them that must stay concealed."""

    def __init__(self, concealer: Concealer) -> None:
        self._concealer = concealer

    def line(self, rule: RuleTrace, *, dry_run: bool = False) -> RuleLine:
        return RuleLine(
            id=rule.policy.id,
            source=rule.policy.source,
            action=rule.action,
            outcome=_outcome(rule),
            fields=tuple(self._fields(rule)),
            dry_run=dry_run,
        )

    def miss(self, trace: tuple[RuleTrace, ...]) -> Miss | None:
        found = nearest(trace)
        if found is None:
            return None
        blocking = {id(term) for term in found.terms}
        fields = tuple(self._fields(found.rule, blocking))
        return Miss(id=found.rule.policy.id, source=found.rule.policy.source, fields=fields)

    def _fields(self, rule: RuleTrace, only: set[int] | None = None) -> Iterable[Field]:
        parts: tuple[tuple[str, tuple[ClauseTrace, ...]], ...] = (
            ("from", rule.sources),
            ("to", rule.operations),
            ("when", rule.conditions),
        )
        for part, clauses in parts:
            for index, clause in enumerate(clauses):
                for term in clause:
                    if only is None or id(term) in only:
                        yield self._field(part, index, term)

    def _field(self, part: str, index: int, term: TermTrace) -> Field:
        return Field(
            part=part,
            index=index,
            field=term.field,
            negated=term.negated,
            wanted=term.wanted,
            got=self._concealer.got(term.field, term.got),
            outcome=_outcome(term),
            source=term.source,
        )


def _outcome(trace: RuleTrace | TermTrace) -> str:
    return trace.outcome.name.lower().replace("_", " ")
