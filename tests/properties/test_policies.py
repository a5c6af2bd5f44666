"""The theorems of the policy engine and of the pipeline around it, for random policies and requests."""

from dataclasses import replace
from typing import Any

from countersign.authorize import authorize
from countersign.core.decision import Allow, AllowReason, Deny, Reason
from countersign.core.facts import RequestFacts
from countersign.core.identity import Identity, VerifiedToken
from countersign.core.posture import Posture
from countersign.core.remote_ip import remote_ip
from countersign.core.spiffe import SpiffeId, SpiffeIdError
from countersign.policy.resources import Action, AuthorizationPolicy
from countersign.policy.scope import PolicySet, scope
from countersign.policy.spec import Evaluation, custom, evaluate
from countersign.policy.terms.attributes import ATTRIBUTES
from countersign.policy.terms.evidence import Evidence
from countersign.policy.workload import Workload
from countersign.snapshot import Mesh, Snapshot
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.generated import GARBAGE, POLICIES, REQUESTS, USERS, VALUES, build, policies, resources
from tests.support.requests import NOW

TRUST_DOMAINS = ("td", "old")
HOPS = 1
WORKLOAD = Workload("ns", ())
Policies = tuple[AuthorizationPolicy, ...]
BOUNDED = settings(max_examples=50, deadline=None)


def _seen(request: RequestFacts, posture: Posture, user: VerifiedToken | None = None) -> Evidence:
    try:
        peer = SpiffeId.parse(request.source.principal)
    except SpiffeIdError:
        peer = None
    return Evidence(
        facts=request,
        identity=Identity(peer=peer, token=user),
        posture=posture,
        trust_domains=TRUST_DOMAINS,
        remote_ip=remote_ip(request, HOPS, "", posture),
    )


def _evaluate(
    found: Policies, request: RequestFacts, posture: Posture = Posture.STRICT, user: VerifiedToken | None = None
) -> Evaluation:
    return evaluate(scope(resources(found), WORKLOAD, "root").http, _seen(request, posture, user))


def _authorize(found: Policies, request: RequestFacts, posture: Posture = Posture.STRICT) -> Allow | Deny:
    mesh = Mesh(
        trust_domain="td",
        trust_domain_aliases=("old",),
        root_namespace="root",
        posture=posture,
        remote_ip_hops=HOPS,
    )
    snapshot = Snapshot(mesh=mesh, policies=PolicySet(resources(found), "root", 1), keys={})
    return authorize(request, snapshot, NOW, may_wait=False).decision


def _allows(evaluation: Evaluation) -> bool:
    return isinstance(evaluation.outcome, AllowReason)


@BOUNDED
@given(POLICIES, REQUESTS, st.sampled_from(Posture))
def test_once_an_allow_applies_only_its_rules_allow(found: Policies, request: RequestFacts, posture: Posture) -> None:
    allow = [policy for policy in found if policy.action is Action.ALLOW and not policy.dry_run]
    outcome = _evaluate(found, request, posture)

    if allow:
        assert outcome.outcome is not AllowReason.NO_ALLOW_POLICY
    if outcome.outcome is AllowReason.RULE_MATCHED:
        assert outcome.policy is not None
        assert outcome.policy.id in {policy.rule_id(rule) for policy in allow for rule in policy.rules}
    if all(not policy.rules for policy in allow) and allow:
        assert not _allows(outcome)


@BOUNDED
@given(POLICIES, REQUESTS, st.sampled_from(Posture))
def test_a_deny_trumps_every_allow(found: Policies, request: RequestFacts, posture: Posture) -> None:
    denying = tuple(policy for policy in found if policy.action is Action.DENY and not policy.dry_run)
    alone = _evaluate(denying, request, posture)
    together = _evaluate(found, request, posture)

    if alone.outcome is Reason.DENY_RULE_MATCHED:
        assert together.outcome is Reason.DENY_RULE_MATCHED
        assert together.policy == alone.policy
    else:
        assert together.outcome is not Reason.DENY_RULE_MATCHED


@BOUNDED
@given(POLICIES, policies((Action.DENY,), tried=(False,)), REQUESTS, st.sampled_from(Posture))
def test_another_deny_never_allows_what_was_denied(
    found: Policies, more: AuthorizationPolicy, request: RequestFacts, posture: Posture
) -> None:
    if not _allows(_evaluate(found, request, posture)):
        assert not _allows(_evaluate((*found, more), request, posture))


@BOUNDED
@given(POLICIES, policies((Action.ALLOW,), tried=(False,)), REQUESTS, st.sampled_from(Posture))
def test_another_allow_beside_one_never_denies_what_was_allowed(
    found: Policies, more: AuthorizationPolicy, request: RequestFacts, posture: Posture
) -> None:
    before = _evaluate(found, request, posture)

    if before.outcome is AllowReason.RULE_MATCHED:
        assert _evaluate((*found, more), request, posture).outcome is AllowReason.RULE_MATCHED


@BOUNDED
@given(POLICIES, REQUESTS, st.sampled_from(Posture), USERS)
def test_what_audits_and_what_is_tried_decides_nothing(
    found: Policies, request: RequestFacts, posture: Posture, user: VerifiedToken | None
) -> None:
    enforced = tuple(p for p in found if p.action in {Action.ALLOW, Action.DENY} and not p.dry_run)
    over = tuple(replace(policy, dry_run=False) for policy in found)
    all_of_it = _evaluate(found, request, posture, user)

    decided = replace(all_of_it, audit=None, dry_run=None, audit_rules=(), tried_rules=())
    assert decided == _evaluate(enforced, request, posture, user)
    if any(policy.dry_run for policy in found):
        assert all_of_it.dry_run is not None
        would = _evaluate(over, request, posture, user)
        assert (all_of_it.dry_run.reason, all_of_it.dry_run.policy) == (would.outcome, would.policy)
    else:
        assert all_of_it.dry_run is None
    audited = {p.rule_id(rule) for p in found if p.action is Action.AUDIT for rule in p.rules}
    assert all_of_it.audit is None or all_of_it.audit.id in audited


@BOUNDED
@given(POLICIES, REQUESTS, st.sampled_from(Posture))
def test_a_custom_policy_denies_what_it_matches_and_decides_nothing_else(
    found: Policies, request: RequestFacts, posture: Posture
) -> None:
    without = tuple(policy for policy in found if policy.action is not Action.CUSTOM)
    asked = custom(scope(resources(found), WORKLOAD, "root").http, _seen(request, posture))
    decision, other = _authorize(found, request, posture), _authorize(without, request, posture)

    if isinstance(decision, Deny) and decision.reason is Reason.CUSTOM_PROVIDER:
        assert decision.policy == asked
        assert asked is not None
    else:
        assert decision == other


@BOUNDED
@given(POLICIES, REQUESTS, st.sampled_from(Posture), USERS)
def test_whatever_passes_without_http_passes_with_it(
    found: Policies, request: RequestFacts, posture: Posture, user: VerifiedToken | None
) -> None:
    """On TCP an ALLOW only shrinks, and DENY and CUSTOM only widen."""
    scoped, seen = scope(resources(found), WORKLOAD, "root"), _seen(request, posture, user)

    if _allows(evaluate(scoped.tcp, seen)):
        assert _allows(evaluate(scoped.http, seen))
    if custom(scoped.tcp, seen) is None:
        assert custom(scoped.http, seen) is None


@BOUNDED
@given(POLICIES, REQUESTS, st.sampled_from(Posture))
def test_a_connection_is_decided_without_the_request_it_might_carry(
    found: Policies, request: RequestFacts, posture: Posture
) -> None:
    connection = replace(
        request,
        http=None,
        source=replace(request.source, address="10.0.0.1"),
        destination=replace(request.destination, address="10.0.0.2"),
    )
    decision = _authorize(found, connection, posture)

    assert decision.reason not in {Reason.REQUEST_MALFORMED, Reason.REQUEST_INCOMPLETE}
    if decision.reason is AllowReason.RULE_MATCHED:
        assert decision.policy is not None
        named = [
            (*rule.sources, *rule.operations, *rule.conditions)
            for policy in found
            for rule in policy.rules
            if policy.action is Action.ALLOW and policy.rule_id(rule) == decision.policy.id
        ]
        assert any(not any(ATTRIBUTES[term.attribute].http for clause in rule for term in clause) for rule in named)


@BOUNDED
@given(POLICIES, REQUESTS, st.sampled_from(Posture), st.randoms(use_true_random=False))
def test_order_and_duplicates_of_policies_do_not_matter(
    found: Policies, request: RequestFacts, posture: Posture, chance: Any
) -> None:
    shuffled = list(found) + chance.sample(found, len(found) // 2)
    chance.shuffle(shuffled)

    assert _evaluate(tuple(shuffled), request, posture).outcome == _evaluate(found, request, posture).outcome


@settings(max_examples=150, deadline=None)
@given(POLICIES, VALUES, st.data())
def test_garbage_in_place_of_an_attribute_never_allows_what_was_denied(
    found: Policies, values: dict[str, Any], data: st.DataObject
) -> None:
    """F02, through the whole pipeline: the request is refused, or judged no better than before."""
    before = _authorize(found, build(values))
    attribute = data.draw(st.sampled_from(sorted(GARBAGE)), label="attribute")
    garbage = data.draw(st.sampled_from(GARBAGE[attribute]), label="garbage")

    if isinstance(before, Deny):
        assert isinstance(_authorize(found, build({**values, attribute: garbage})), Deny)


@settings(max_examples=150, deadline=None)
@given(POLICIES, REQUESTS, USERS)
def test_strict_never_allows_what_istio_denies(
    found: Policies, request: RequestFacts, user: VerifiedToken | None
) -> None:
    if not _allows(_evaluate(found, request, Posture.ISTIO, user)):
        assert not _allows(_evaluate(found, request, Posture.STRICT, user))
    if isinstance(_authorize(found, request, Posture.ISTIO), Deny):
        assert isinstance(_authorize(found, request, Posture.STRICT), Deny)


@BOUNDED
@given(POLICIES, REQUESTS, st.sampled_from(Posture))
def test_a_decision_says_why_and_is_the_same_every_time(
    found: Policies, request: RequestFacts, posture: Posture
) -> None:
    decision = _authorize(found, request, posture)

    assert decision == _authorize(found, request, posture)
    assert decision.generation == 1
    assert (decision.policy is not None) == (
        decision.reason in {AllowReason.RULE_MATCHED, Reason.DENY_RULE_MATCHED, Reason.CUSTOM_PROVIDER}
    )
    if isinstance(decision, Deny):
        assert decision.status in {400, 401, 403, 503}
