"""The pipeline: facts to a decision, in numbered steps, and the one place where known errors become a Deny.

It awaits nothing, reads no clock and touches no file: everything it needs is in one immutable `Snapshot`.

1. refuse a request that no client has a reason to send;
2. find the workload, and the policies that apply to it;
3. establish the peer (the first proof), and hold it against PeerAuthentication;
   deny what a CUSTOM policy matches, which Istio asks here and which nobody can be asked about;
4. establish the user (the second proof), as RequestAuthentication wants, and hold the token against the peer;
5. let the authorization policies decide.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from typing import Final

from countersign.certificates.presented import presented
from countersign.certificates.read import CertificateError
from countersign.core import hosts, paths
from countersign.core.certificate import Certificate
from countersign.core.decision import Allow, AllowReason, Decision, Deny, Mutations, PolicyRef, Reason
from countersign.core.facts import HttpRequest, RequestFacts
from countersign.core.identity import (
    NOBODY,
    Identity,
    Peer,
    PeerError,
    VerifiedToken,
    authenticate_peer,
)
from countersign.core.jwt_rule import FetchedKeys, JwtRule
from countersign.core.posture import Posture
from countersign.core.remote_ip import remote_ip
from countersign.core.spiffe import SpiffeId
from countersign.judgement import Judgement, Step, deny, unauthenticated
from countersign.policy.compile import CompiledPolicies
from countersign.policy.resources import MtlsMode
from countersign.policy.scope import PolicySet, PortMode, WorkloadPolicies
from countersign.policy.spec import Evaluation, custom_rules, decider, evaluate
from countersign.policy.terms.evidence import Evidence
from countersign.policy.trace import RuleTrace
from countersign.policy.workload import Workload, WorkloadError, find_workload
from countersign.snapshot import Mesh, Snapshot
from countersign.tokens.authenticate import Authenticated, KeysNeeded, TokenRefused, authenticate
from countersign.tokens.bound import refuse_unbound
from countersign.tokens.forwarded import forwarded

_NOBODY: Final = Authenticated(token=None, mutations=Mutations(), until=inf)

_EXPLAINED: Final = 64  # rules of a workload; to ask more of them again at each denial would reward attackers


@dataclass(slots=True)
class _Found:
    """What the steps so far have found."""

    step: Step = Step.REQUEST
    workload: Workload | None = None
    peer: SpiffeId | None = None
    token: VerifiedToken | None = None
    custom: tuple[RuleTrace, ...] = ()

    def refused(self, denial: Deny, awaits: frozenset[FetchedKeys] = frozenset(), until: float = inf) -> Judgement:
        return Judgement(
            step=self.step,
            decision=denial,
            workload=self.workload,
            peer=self.peer,
            token=self.token,
            custom=self.custom,
            awaits=awaits,
            until=until,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Engine:
    """What policies that apply decide: the CUSTOM ones in step 3 (by whom, and the trace), the others in step 5."""

    custom: Callable[[WorkloadPolicies, Evidence], tuple[PolicyRef | None, tuple[RuleTrace, ...]]]
    evaluate: Callable[[WorkloadPolicies, Evidence], Evaluation]


# Step 4 for a request and the rules that apply to it.
Authenticator = Callable[[HttpRequest, tuple[JwtRule, ...]], Authenticated | TokenRefused | KeysNeeded]


class _RefusedError(Exception):
    """A step refuses the request."""

    def __init__(self, reason: Reason, detail: str, policy: PolicyRef | None = None) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.policy = policy


def authorize(
    facts: RequestFacts, snapshot: Snapshot, now: float, *, may_wait: bool, explain: bool = True
) -> Judgement:
    """Decide one request at ``now`` (seconds since the epoch).

    With ``may_wait``, a denial for a token whose key may arrive with a fetch says what it ``awaits``. Without
    ``explain``, a denial by policies has no detail, and costs no more than an allow.
    """
    authenticator = partial(_authenticate, snapshot=snapshot, now=now, may_wait=may_wait)
    return _judge(facts, snapshot, authenticator, _SERVING if explain else _BRIEF)


def judge(facts: RequestFacts, snapshot: Snapshot, authenticator: Authenticator) -> Judgement:
    """Decide one request by the definition, and keep what each step found. ``authenticator`` is step 4."""
    return _judge(facts, snapshot, authenticator, _EXPLAINING)


def _judge(facts: RequestFacts, snapshot: Snapshot, authenticator: Authenticator, engine: _Engine) -> Judgement:
    policies = snapshot.policies
    if policies is None:
        return Judgement(step=Step.REQUEST, decision=deny(Reason.NO_POLICIES, "no policy has been loaded"))
    generation = policies.generation
    found = _Found()
    try:
        return _steps(facts, snapshot.mesh, policies, authenticator, engine, found)
    except _RefusedError as refused:
        return found.refused(deny(refused.reason, refused.detail, refused.policy, generation))
    except PeerError as doubtful:
        return found.refused(deny(doubtful.reason, str(doubtful), None, generation))
    except WorkloadError as unknown:
        return found.refused(deny(Reason.WORKLOAD_UNKNOWN, str(unknown), None, generation))


def _steps(
    facts: RequestFacts,
    mesh: Mesh,
    policies: PolicySet,
    authenticator: Authenticator,
    engine: _Engine,
    found: _Found,
) -> Judgement:
    _refuse_unacceptable(facts, mesh.posture)  # 1
    found.step = Step.WORKLOAD
    found.workload = find_workload(facts, mesh.namespace, mesh.labels)  # 2
    applied = policies.for_workload(found.workload)
    found.step = Step.PEER
    if applied.mtls_by_port and not facts.destination.port and mesh.posture is Posture.STRICT:
        raise _RefusedError(Reason.REQUEST_INCOMPLETE, "the port is unknown, and PeerAuthentication asks for it")
    peer = _peer(facts, applied.mtls_on(facts.destination.port), mesh)  # 3
    found.peer = peer.id
    ip = remote_ip(facts, mesh.remote_ip_hops, mesh.remote_ip_header, mesh.posture)
    if applied.http.custom:
        found.step = Step.CUSTOM
        by, found.custom = engine.custom(applied, _evidence(facts, peer.id, None, mesh, ip))
        _refuse_custom(by)
    found.step = Step.TOKEN
    user = _NOBODY if facts.http is None else authenticator(facts.http, applied.jwt_rules)  # 4
    awaits: frozenset[FetchedKeys] = frozenset()
    if isinstance(user, KeysNeeded):
        awaits, user = user.sources, user.refused
    if isinstance(user, Authenticated):
        found.token = user.token
        user = refuse_unbound(user, applied.jwt_rules, peer, mesh.posture) or user
    if isinstance(user, TokenRefused):
        return found.refused(unauthenticated(facts.http, user, policies.generation), awaits, until=0.0)
    if facts.http is not None:  # policies look at what goes on, not at what a client wrote in a token's name
        http = forwarded(facts.http, user.mutations)
        facts = facts if http is facts.http else facts.with_http(http)
    found.step = Step.POLICIES
    evaluation = engine.evaluate(applied, _evidence(facts, peer.id, user.token, mesh, ip))  # 5
    return Judgement(
        step=found.step,
        decision=_decision(evaluation, user.mutations, policies.generation),
        workload=found.workload,
        peer=found.peer,
        custom=found.custom,
        token=user.token,
        evaluation=evaluation,
        until=user.until,
    )


def _evidence(facts: RequestFacts, peer: SpiffeId | None, token: VerifiedToken | None, mesh: Mesh, ip: str) -> Evidence:
    return Evidence(
        facts=facts,
        identity=Identity(peer=peer, token=token),
        posture=mesh.posture,
        trust_domains=mesh.trust_domains,
        remote_ip=ip,
    )


def _explain(applied: WorkloadPolicies, evidence: Evidence) -> Evaluation:
    """Step 5 with the whole trace, by the definition."""
    return evaluate(applied.tcp if evidence.facts.http is None else applied.http, evidence)


def _explain_custom(applied: WorkloadPolicies, evidence: Evidence) -> tuple[PolicyRef | None, tuple[RuleTrace, ...]]:
    rules = custom_rules(applied.tcp if evidence.facts.http is None else applied.http, evidence)
    return decider(rules), rules


def _serve_custom(applied: WorkloadPolicies, evidence: Evidence) -> tuple[PolicyRef | None, tuple[RuleTrace, ...]]:
    return _compiled(applied, evidence).custom(evidence), ()


def _serve(applied: WorkloadPolicies, evidence: Evidence) -> Evaluation:
    """As `_serve_briefly`, and a denial by few rules says what kept it from an allow."""
    served = _serve_briefly(applied, evidence)
    if isinstance(served.outcome, Reason) and applied.http.rules <= _EXPLAINED:
        return replace(served, detail=_explain(applied, evidence).detail)
    return served


def _serve_briefly(applied: WorkloadPolicies, evidence: Evidence) -> Evaluation:
    """Step 5 without the trace, by the compiled policies."""
    verdict = _compiled(applied, evidence).evaluate(evidence)
    return Evaluation(
        outcome=verdict.outcome,
        policy=verdict.policy,
        detail="",
        rules=(),
        audit=verdict.audit,
        dry_run=verdict.dry_run,
    )


_EXPLAINING: Final = _Engine(custom=_explain_custom, evaluate=_explain)
_SERVING: Final = _Engine(custom=_serve_custom, evaluate=_serve)
_BRIEF: Final = _Engine(custom=_serve_custom, evaluate=_serve_briefly)


def _compiled(applied: WorkloadPolicies, evidence: Evidence) -> CompiledPolicies:
    tcp = evidence.facts.http is None
    return applied.engine(tcp=tcp, posture=evidence.posture, trust_domains=evidence.trust_domains)


def _decision(evaluation: Evaluation, mutations: Mutations, generation: int) -> Decision:
    if isinstance(evaluation.outcome, AllowReason):
        return Allow(
            reason=evaluation.outcome,
            policy=evaluation.policy,
            mutations=mutations,
            generation=generation,
            audit=evaluation.audit,
            dry_run=evaluation.dry_run,
        )
    denial = deny(evaluation.outcome, evaluation.detail, evaluation.policy, generation)
    if evaluation.audit is None and evaluation.dry_run is None:
        return denial
    return replace(denial, audit=evaluation.audit, dry_run=evaluation.dry_run)


def _refuse_custom(policy: PolicyRef | None) -> None:
    if policy is not None:
        raise _RefusedError(Reason.CUSTOM_PROVIDER, "a CUSTOM policy matches, and there is no provider to ask", policy)


def _authenticate(
    http: HttpRequest, rules: tuple[JwtRule, ...], *, snapshot: Snapshot, now: float, may_wait: bool
) -> Authenticated | TokenRefused | KeysNeeded:
    posture = snapshot.mesh.posture
    return authenticate(http, rules, snapshot.keys, now, posture, may_wait=may_wait, cache=snapshot.tokens)


def _refuse_unacceptable(facts: RequestFacts, posture: Posture) -> None:
    http = facts.http
    if http is None:  # a network filter's check: it knows both ends of the connection, and nothing else
        if not facts.source.address or not facts.destination.address:
            raise _RefusedError(Reason.REQUEST_INCOMPLETE, "neither HTTP attributes nor the ends of a connection")
        return
    if not http.method:
        raise _RefusedError(Reason.REQUEST_MALFORMED, "no method")
    if posture is Posture.ISTIO:
        return
    try:
        paths.refuse_unacceptable(http.path)
        hosts.refuse_unacceptable(http.host)
    except (paths.PathError, hosts.HostError) as error:
        raise _RefusedError(Reason.REQUEST_MALFORMED, str(error)) from error


def _peer(facts: RequestFacts, port: PortMode, mesh: Mesh) -> Peer:
    if port.mode is MtlsMode.DISABLE:  # Istio has no TLS, hence no identity, on such a port
        return NOBODY
    peer = authenticate_peer(facts, mesh.peer, _certificate(facts))
    if peer.id is None:
        if port.mode is MtlsMode.STRICT:
            policy = PolicyRef(id=f"PeerAuthentication[{port.policy}]", source=port.source)
            raise _RefusedError(Reason.MTLS_REQUIRED, "the connection has no client certificate of the mesh", policy)
    elif peer.id.trust_domain not in mesh.trust_domains:
        raise _RefusedError(Reason.PEER_UNTRUSTED_DOMAIN, f"{peer.id} is of another trust domain")
    return peer


def _certificate(facts: RequestFacts) -> Certificate | None:
    if not facts.source.certificate:
        return None
    try:
        return presented(facts.source.certificate)
    except CertificateError as error:
        raise _RefusedError(Reason.PEER_CERTIFICATE_MALFORMED, f"source.certificate: {error}") from error
