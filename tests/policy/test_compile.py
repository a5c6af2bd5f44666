"""The engine that serves, case by case; that it decides as the definition does is a property (tests/properties)."""

from typing import Final

import pytest
from countersign.core.decision import AllowReason, DryRun, PolicyRef, Reason
from countersign.core.facts import RequestFacts
from countersign.core.posture import Posture
from countersign.policy.actions import by_action
from countersign.policy.compile import CompiledPolicies, Verdict
from countersign.policy.index import FEW

from tests.support.requests import authorization, evidence, facts, load

TRUST_DOMAINS: Final = ("td", "old")
GET: Final = "{to: [{operation: {methods: [GET]}}]}"
OTHERS: Final = ", ".join(f"{{to: [{{operation: {{paths: [/other/{number}]}}}}]}}" for number in range(FEW))


def _compiled(*specs: str, posture: Posture = Posture.STRICT) -> CompiledPolicies:
    text = "".join(authorization(spec, f"p{number}") for number, spec in enumerate(specs))
    return CompiledPolicies(by_action(load(text).authorization_policies), posture, TRUST_DOMAINS)


def _tried(spec: str) -> str:
    """A policy of a dry run."""
    return authorization(spec, "tried").replace("}\n", ", annotations: {istio.io/dry-run: 'true'}}\n", 1)


def _judge(
    compiled: CompiledPolicies, request: RequestFacts | None = None, peer: str | None = "spiffe://td/ns/a/sa/x"
) -> Verdict:
    return compiled.evaluate(evidence(request, peer=peer, trust_domains=TRUST_DOMAINS))


def _rule(policy: int, rule: int) -> PolicyRef:
    return PolicyRef(id=f"ns[apps]-policy[p{policy}]-rule[{rule}]", source=f"policy.yaml:{5 * policy + 4}")


@pytest.mark.parametrize("others", ["", f", {OTHERS}"], ids=["asked", "looked up"])
def test_a_principal_is_known_under_every_trust_domain_of_the_mesh(others: str) -> None:
    rule = "{from: [{source: {principals: [td/ns/a/sa/x]}}]}"
    compiled = _compiled(f"{{action: DENY, rules: [{rule}{others}]}}")

    assert _judge(compiled, peer="spiffe://old/ns/a/sa/x").policy == _rule(0, 0)
    assert _judge(compiled, peer="spiffe://new/ns/a/sa/x").policy is None


def test_custom_policies_are_asked_where_there_are_any() -> None:
    custom = _compiled(f"{{action: CUSTOM, provider: {{name: p}}, rules: [{GET}]}}")
    seen = evidence(facts(method="GET"))

    assert custom.asks_custom is True
    assert custom.custom(seen) == _rule(0, 0)
    assert custom.custom(evidence(facts(method="PUT"))) is None
    assert _compiled("{}").asks_custom is False


def test_an_audit_policy_is_reported_where_it_matches() -> None:
    compiled = _compiled(f"{{action: AUDIT, rules: [{GET}]}}")

    assert _judge(compiled, facts(method="GET")).audit == _rule(0, 0)
    assert _judge(compiled, facts(method="PUT")).audit is None


@pytest.mark.parametrize("posture", Posture)
def test_a_dry_run_is_judged_as_if_it_were_enforced(posture: Posture) -> None:
    rule = "{from: [{source: {principals: [td/ns/a/sa/x]}}], to: [{operation: {paths: [/admin]}}]}"
    policies = load(_tried(f"{{action: DENY, rules: [{rule}]}}")).authorization_policies
    compiled = CompiledPolicies(by_action(policies), posture, TRUST_DOMAINS)
    would = PolicyRef(id="ns[apps]-policy[tried]-rule[0]", source="policy.yaml:4")
    denied = DryRun(reason=Reason.DENY_RULE_MATCHED, policy=would)
    passed = DryRun(reason=AllowReason.NO_ALLOW_POLICY, policy=None)

    def found(path: str, peer: str = "spiffe://old/ns/a/sa/x") -> DryRun | None:
        seen = evidence(facts(path=path), peer=peer, posture=posture, trust_domains=TRUST_DOMAINS)
        verdict = compiled.evaluate(seen)
        assert verdict.outcome is AllowReason.NO_ALLOW_POLICY
        return verdict.dry_run

    assert found("/admin") == denied
    assert found("/other") == passed
    assert found("/admin", "spiffe://new/ns/a/sa/x") == passed
    assert found("/a/../admin") == (denied if posture is Posture.STRICT else passed)


def test_a_rule_is_judged_in_the_light_of_its_action() -> None:
    seen = facts(host="shop.example:8443")

    def outcome(action: str, host: str) -> object:
        rule = f"{{to: [{{operation: {{hosts: ['{host}']}}}}]}}"
        return _judge(_compiled(f"{{action: {action}, rules: [{rule}]}}"), seen).outcome

    assert outcome("DENY", "shop.example") is Reason.DENY_RULE_MATCHED
    assert outcome("DENY", "shop.example:8443") is Reason.DENY_RULE_MATCHED
    assert outcome("ALLOW", "shop.example") is Reason.NO_ALLOW_RULE_MATCHED
    assert outcome("ALLOW", "shop.example:8443") is AllowReason.RULE_MATCHED


def test_a_service_account_is_of_the_policys_namespace() -> None:
    compiled = _compiled("{rules: [{from: [{source: {serviceAccounts: [x]}}]}]}")

    assert _judge(compiled, peer="spiffe://td/ns/apps/sa/x").outcome is AllowReason.RULE_MATCHED
    assert _judge(compiled, peer="spiffe://td/ns/a/sa/x").outcome is Reason.NO_ALLOW_RULE_MATCHED


def test_one_of_several_sources_and_all_of_several_fields_are_enough() -> None:
    two = "{source: {namespaces: [b]}}, {source: {namespaces: [a], ipBlocks: [10.1.2.3]}}, {source: {namespaces: [c]}}"
    compiled = _compiled(f"{{rules: [{{from: [{two}]}}]}}")

    assert _judge(compiled).policy == _rule(0, 0)
    assert _judge(compiled, facts(source="10.1.2.4")).outcome is Reason.NO_ALLOW_RULE_MATCHED
    assert _judge(compiled, peer="spiffe://td/ns/d/sa/x").outcome is Reason.NO_ALLOW_RULE_MATCHED
