"""Policies by what they do, and what is left of them without HTTP."""

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import pytest
import yaml
from countersign.core.decision import AllowReason, Reason
from countersign.core.facts import Endpoint, RequestFacts
from countersign.core.posture import Posture
from countersign.policy.actions import PoliciesByAction, by_action, on_tcp
from countersign.policy.resources import Action, AuthorizationPolicy, Rule
from countersign.policy.spec import custom, evaluate
from countersign.policy.terms.evidence import Evidence

from tests.support import vectors
from tests.support.requests import authorization, evidence, load, scoped

TCP: Final = RequestFacts(
    http=None,
    source=Endpoint(address="10.0.0.1", principal="spiffe://cluster.local/ns/edge/sa/web"),
    destination=Endpoint(address="10.0.0.2", port=80),
)
SEEN: Final = evidence(TCP)


def _tried(text: str) -> str:
    return text.replace("metadata: {", "metadata: {annotations: {istio.io/dry-run: 'true'}, ")


# --- by action --------------------------------------------------------------------------------------------------------


def test_policies_are_sorted_by_action_and_those_of_a_dry_run_stand_apart() -> None:
    text = (
        authorization("{}", "a1")
        + authorization("{action: DENY, rules: [{}]}", "d1")
        + authorization("{action: AUDIT, rules: [{}]}", "u1")
        + authorization("{action: CUSTOM, provider: {name: p}, rules: [{}]}", "c1")
        + authorization("{}", "a2")
        + _tried(authorization("{}", "t1") + authorization("{action: DENY, rules: [{}]}", "t2"))
    )

    found = scoped(text).http

    assert [
        [policy.meta.name for policy in group] for group in (found.allow, found.deny, found.audit, found.custom)
    ] == [
        ["a1", "a2"],
        ["d1"],
        ["u1"],
        ["c1"],
    ]
    assert [policy.meta.name for policy in found.tried] == ["t1", "t2"]


def test_when_the_dry_run_is_over_every_policy_is_in_force() -> None:
    text = authorization("{}", "a") + _tried(
        authorization("{}", "b") + authorization("{action: DENY, rules: [{}]}", "d")
    )

    over = scoped(text).http.as_if_enforced()

    assert [policy.meta.name for policy in over.allow] == ["a", "b"]
    assert [policy.meta.name for policy in over.deny] == ["d"]
    assert over.tried == ()
    assert not any(policy.dry_run for policy in (*over.allow, *over.deny))


def test_no_policy_is_no_policy() -> None:
    assert by_action([]) == PoliciesByAction()
    assert on_tcp(load(authorization("{}")).authorization_policies[0]).rules == ()


# --- without HTTP -----------------------------------------------------------------------------------------------------

HTTP_PARTS: Final = [
    "to: [{operation: {methods: [GET]}}]",
    "to: [{operation: {notMethods: [GET]}}]",
    "to: [{operation: {paths: [/a]}}]",
    "to: [{operation: {paths: ['/{*}']}}]",
    "to: [{operation: {hosts: [a]}}]",
    "from: [{source: {requestPrincipals: [a]}}]",
    "from: [{source: {notRequestPrincipals: [a]}}]",
    "when: [{key: 'request.headers[a]', values: [a]}]",
    "when: [{key: 'request.headers[a]', notValues: [a]}]",
    "when: [{key: request.auth.principal, values: [a]}]",
    "when: [{key: request.auth.audiences, values: [a]}]",
    "when: [{key: request.auth.presenter, values: [a]}]",
    "when: [{key: 'request.auth.claims[a]', values: [a]}]",
]
TCP_PARTS: Final = [
    "to: [{operation: {ports: ['80']}}]",
    "from: [{source: {principals: ['*']}}]",
    "from: [{source: {namespaces: [edge]}}]",
    "from: [{source: {serviceAccounts: [edge/web]}}]",
    "from: [{source: {trustDomains: [cluster.local]}}]",
    "from: [{source: {ipBlocks: [10.0.0.0/8]}}]",
    "from: [{source: {notRemoteIpBlocks: [10.0.0.0/8]}}]",
    "when: [{key: destination.ip, values: [10.0.0.2]}]",
    "when: [{key: destination.port, values: ['80']}]",
    "when: [{key: connection.sni, notValues: [a]}]",
    "when: [{key: 'experimental.envoy.filters.a[b]', notValues: [a]}]",
]


def _outcome(action: str, rule: str, seen: Evidence = SEEN) -> AllowReason | Reason:
    return evaluate(scoped(authorization(f"{{action: {action}, rules: [{{{rule}}}]}}")).tcp, seen).outcome


@pytest.mark.parametrize("posture", Posture)
@pytest.mark.parametrize("part", HTTP_PARTS)
def test_a_rule_that_asks_for_http_alone_allows_nothing_and_denies_everything(part: str, posture: Posture) -> None:
    seen = evidence(TCP, posture=posture, remote_ip="11.0.0.1")

    assert _outcome("ALLOW", part, seen) is Reason.NO_ALLOW_RULE_MATCHED
    assert _outcome("DENY", part, seen) is Reason.DENY_RULE_MATCHED


@pytest.mark.parametrize("posture", Posture)
@pytest.mark.parametrize("part", TCP_PARTS)
def test_a_rule_that_asks_for_the_connection_means_the_same_without_http(part: str, posture: Posture) -> None:
    seen = evidence(TCP, posture=posture, remote_ip="11.0.0.1")

    assert _outcome("ALLOW", part, seen) is AllowReason.RULE_MATCHED
    assert _outcome("DENY", part, seen) is Reason.DENY_RULE_MATCHED


@pytest.mark.parametrize("port", ["80", "81"])
def test_of_both_an_allow_loses_the_rule_and_a_deny_the_http_part(port: str) -> None:
    rule = f"to: [{{operation: {{methods: [GET], ports: ['{port}']}}}}]"

    assert _outcome("ALLOW", rule) is Reason.NO_ALLOW_RULE_MATCHED
    assert _outcome("DENY", rule) is (Reason.DENY_RULE_MATCHED if port == "80" else AllowReason.NO_ALLOW_POLICY)


def test_one_http_part_in_one_of_several_operations_takes_the_whole_rule_of_an_allow() -> None:
    rule = "to: [{operation: {ports: ['80']}}, {operation: {methods: [GET]}}]"

    assert _outcome("ALLOW", rule) is Reason.NO_ALLOW_RULE_MATCHED
    assert _outcome("DENY", "to: [{operation: {ports: ['81']}}, {operation: {methods: [GET]}}]") is (
        Reason.DENY_RULE_MATCHED
    )


def test_other_rules_of_the_same_policy_stay_with_their_numbers() -> None:
    text = authorization("{rules: [{to: [{operation: {methods: [GET]}}]}, {to: [{operation: {ports: ['80']}}]}]}")

    evaluation = evaluate(scoped(text).tcp, SEEN)

    assert evaluation.policy is not None
    assert evaluation.policy.id == "ns[apps]-policy[rule]-rule[1]"


def test_an_audit_or_custom_rule_widens_as_a_deny_does() -> None:
    rule = "{to: [{operation: {methods: [GET]}}]}"
    text = authorization(f"{{action: AUDIT, rules: [{rule}]}}") + authorization(
        f"{{action: CUSTOM, provider: {{name: p}}, rules: [{rule}]}}", "asks"
    )

    audited = evaluate(scoped(text).tcp, SEEN).audit
    asked = custom(scoped(text).tcp, SEEN)

    assert audited is not None
    assert audited.id == "ns[apps]-policy[rule]-rule[0]"
    assert asked is not None
    assert asked.id == "ns[apps]-policy[asks]-rule[0]"


# --- Istio's own translations -----------------------------------------------------------------------------------------

# The matchers that Istio writes for each attribute.
KINDS: Final = {
    "source.principal": "authenticated",
    "source.namespace": "authenticated",
    "source.serviceAccount": "authenticated",
    "source.trustDomain": "authenticated",
    "source.ip": "directRemoteIp",
    "remote.ip": "remoteIp",
    "destination.ip": "destinationIp",
    "destination.port": "destinationPort",
    "connection.sni": "requestedServerName",
    "experimental.envoy.filters": "metadata",
}
GOLDENS: Final = [
    ("allow-both-http-tcp", "allow-both-http-tcp-out"),
    ("allow-only-http", "allow-only-http-out"),
    ("audit-both-http-tcp", "audit-both-http-tcp-out"),
    ("custom-both-http-tcp", "custom-both-http-tcp-out1"),
    ("deny-both-http-tcp", "deny-both-http-tcp-out"),
    ("dry-run-mix", "dry-run-mix-out"),
]
Kinds = Counter[tuple[bool, str]]  # negated or not, and the matcher


def _leaves(node: Any, *, negated: bool = False) -> Iterator[tuple[bool, str]]:
    """Every matcher below a golden's permissions or principals."""
    if isinstance(node, list):
        for each in node:
            yield from _leaves(each, negated=negated)
        return
    for name, value in node.items():
        if name in {"andRules", "orRules", "andIds", "orIds"}:
            yield from _leaves(value.get("rules") or value["ids"], negated=negated)
        elif name in {"notRule", "notId"}:
            yield from _leaves(value, negated=True)
        elif name in KINDS.values():
            yield negated, name
        else:
            assert (name, value) == ("any", True)


def _golden(config: dict[str, Any], part: str) -> dict[str, Kinds]:
    policies = (config["typedConfig"].get(part) or {}).get("policies", {})
    return {
        name.removeprefix("istio-ext-authz-default-"): Counter(
            [*_leaves(policy["permissions"]), *_leaves(policy["principals"])]
        )
        for name, policy in policies.items()
    }


def _kinds(rule: Rule) -> Kinds:
    """What Istio writes for a rule with one source and one operation at most: `when` is copied into each."""
    assert len(rule.sources) <= 1
    assert len(rule.operations) <= 1
    return Counter(
        (term.negated, KINDS[term.attribute])
        for clause in (*rule.sources, *rule.operations, *rule.conditions)
        for term in clause
        for _ in term.values
    )


def _ours(policies: tuple[AuthorizationPolicy, ...]) -> dict[str, Kinds]:
    return {policy.rule_id(rule): _kinds(rule) for policy in policies for rule in on_tcp(policy).rules}


@pytest.mark.parametrize(("source", "translated"), GOLDENS)
def test_what_is_left_on_tcp_is_what_istio_writes(source: str, translated: str) -> None:
    resources = load(vectors.text(f"istio/golden/tcp/{source}-in.yaml"), "foo")
    golden = yaml.safe_load(vectors.text(f"istio/golden/tcp/{translated}.yaml"))
    enforced = tuple(policy for policy in resources.authorization_policies if not policy.dry_run)
    tried = tuple(policy for policy in resources.authorization_policies if policy.dry_run)
    if enforced and enforced[0].action is Action.CUSTOM:  # Istio asks the provider where a shadow rule matches
        enforced, tried = (), enforced

    assert _ours(enforced) == _golden(golden, "rules")
    assert _ours(tried) == _golden(golden, "shadowRules")
