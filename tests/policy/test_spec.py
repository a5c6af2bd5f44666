"""The definition: DENY before ALLOW, nothing allowed but what an ALLOW names once there is one."""

import itertools
from dataclasses import replace
from typing import Final

import pytest
from countersign.core.decision import AllowReason, Reason
from countersign.core.posture import Posture
from countersign.policy.match import Outcome
from countersign.policy.resources import Action
from countersign.policy.spec import Evaluation, custom, evaluate
from countersign.policy.terms.evidence import Evidence

from tests.support.requests import authorization, evidence, facts, scoped, token

GET: Final = "{to: [{operation: {methods: [GET]}}]}"  # matches
POST: Final = "{to: [{operation: {methods: [POST]}}]}"  # does not match
DARK: Final = "{from: [{source: {ipBlocks: [10.0.0.0/8]}}]}"  # cannot be read
SEEN: Final = evidence(facts(source="", method="GET", path="/a"))


def _evaluate(text: str, seen: Evidence = SEEN) -> Evaluation:
    return evaluate(scoped(text).http, seen)


def _allow(rules: str, name: str = "rule") -> str:
    return authorization(f"{{rules: [{rules}]}}", name)


def _deny(rules: str, name: str = "stop") -> str:
    return authorization(f"{{action: DENY, rules: [{rules}]}}", name)


# --- the decision -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("", AllowReason.NO_ALLOW_POLICY),
        (_allow(GET), AllowReason.RULE_MATCHED),
        (_allow(POST), Reason.NO_ALLOW_RULE_MATCHED),
        (_allow(DARK), Reason.NO_ALLOW_RULE_MATCHED),
        (_allow(""), Reason.NO_ALLOW_RULE_MATCHED),
        (authorization("{}"), Reason.NO_ALLOW_RULE_MATCHED),
        (_allow("{}"), AllowReason.RULE_MATCHED),
        (_allow(f"{POST}, {GET}"), AllowReason.RULE_MATCHED),
        (_allow(f"{POST}, {DARK}"), Reason.NO_ALLOW_RULE_MATCHED),
        (_allow(POST) + _allow(GET, "other"), AllowReason.RULE_MATCHED),
        (_allow(DARK) + _allow(GET, "other"), AllowReason.RULE_MATCHED),
        (_deny(GET), Reason.DENY_RULE_MATCHED),
        (_deny(POST), AllowReason.NO_ALLOW_POLICY),
        (_deny(DARK), Reason.DENY_RULE_MATCHED),
        (_deny("{}"), Reason.DENY_RULE_MATCHED),
        (_deny(POST) + _allow(GET), AllowReason.RULE_MATCHED),
        (_deny(POST) + _allow(POST), Reason.NO_ALLOW_RULE_MATCHED),
        (_deny(GET) + _allow(GET), Reason.DENY_RULE_MATCHED),
        (_deny(DARK) + _allow(GET), Reason.DENY_RULE_MATCHED),
        (_deny(f"{POST}, {GET}") + _allow("{}"), Reason.DENY_RULE_MATCHED),
        (_deny(POST) + _deny(GET, "other") + _allow("{}"), Reason.DENY_RULE_MATCHED),
    ],
)
def test_deny_comes_before_allow_and_without_allow_all_else_passes(text: str, outcome: AllowReason | Reason) -> None:
    assert _evaluate(text).outcome is outcome


# --- parts of a rule --------------------------------------------------------------------------------------------------

FROM: Final = {
    Outcome.MATCH: "{source: {principals: ['*']}}",
    Outcome.NO_MATCH: "{source: {principals: [x]}}",
    Outcome.UNREADABLE: "{source: {ipBlocks: [10.0.0.0/8]}}",
}
TO: Final = {
    Outcome.MATCH: "{operation: {methods: [GET]}}",
    Outcome.NO_MATCH: "{operation: {methods: [POST]}}",
    Outcome.UNREADABLE: "{operation: {ports: ['80']}}",
}
WHEN: Final = {
    Outcome.MATCH: "{key: 'request.headers[:method]', values: [GET]}",
    Outcome.NO_MATCH: "{key: 'request.headers[:method]', values: [POST]}",
    Outcome.UNREADABLE: "{key: 'request.headers[x-a]', values: [b]}",
}
ANY: Final = evidence(facts(("x-a", "\udcff"), source="", port=0))


def _rule_outcome(rule: str) -> Outcome:
    return _evaluate(_allow(rule), ANY).rules[0].outcome


@pytest.mark.parametrize(("one", "two", "three"), list(itertools.product(Outcome, repeat=3)))
def test_a_rule_is_from_and_to_and_when(one: Outcome, two: Outcome, three: Outcome) -> None:
    assert _rule_outcome(f"{{from: [{FROM[one]}], to: [{TO[two]}], when: [{WHEN[three]}]}}") == min(one, two, three)


@pytest.mark.parametrize(("one", "two"), list(itertools.product(Outcome, repeat=2)))
def test_sources_and_operations_are_alternatives_and_conditions_are_not(one: Outcome, two: Outcome) -> None:
    assert _rule_outcome(f"{{from: [{FROM[one]}, {FROM[two]}]}}") == max(one, two)
    assert _rule_outcome(f"{{to: [{TO[one]}, {TO[two]}]}}") == max(one, two)
    assert _rule_outcome(f"{{when: [{WHEN[one]}, {WHEN[two]}]}}") == min(one, two)


def test_fields_of_one_source_all_hold() -> None:
    assert _rule_outcome("{from: [{source: {principals: ['*'], namespaces: [edge]}}]}") is Outcome.MATCH
    assert _rule_outcome("{from: [{source: {principals: ['*'], namespaces: [x]}}]}") is Outcome.NO_MATCH
    assert _rule_outcome("{from: [{source: {principals: ['*'], notNamespaces: [edge]}}]}") is Outcome.NO_MATCH


def test_values_and_not_values_of_one_entry_both_hold() -> None:
    def entry(values: str, not_values: str) -> Outcome:
        condition = f"{{key: 'request.headers[:path]', values: [{values}], notValues: [{not_values}]}}"
        return _rule_outcome(f"{{when: [{condition}]}}")

    assert entry("/*", "/x") is Outcome.MATCH
    assert entry("/*", "/") is Outcome.NO_MATCH
    assert entry("/x", "/y") is Outcome.NO_MATCH


def test_one_key_in_two_entries_asks_for_two_values_of_a_list() -> None:
    rule = "{when: [{key: 'request.auth.claims[g]', values: [a]}, {key: 'request.auth.claims[g]', values: [b]}]}"

    for groups, outcome in ((["a", "b"], AllowReason.RULE_MATCHED), (["a"], Reason.NO_ALLOW_RULE_MATCHED)):
        assert _evaluate(_allow(rule), evidence(token=token(g=groups))).outcome is outcome


# --- who decided ------------------------------------------------------------------------------------------------------


def test_the_deciding_rule_is_named_by_istios_id_and_its_line() -> None:
    text = _allow(POST, "first") + (
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"
        f"metadata: {{name: second, namespace: istio-system}}\nspec:\n  rules:\n  - {POST}\n  - {GET}\n"
    )

    policy = _evaluate(text).policy

    assert policy is not None
    assert policy.id == "ns[istio-system]-policy[second]-rule[1]"
    assert policy.source == "policy.yaml:12"


@pytest.mark.parametrize("text", ["", _allow(POST), _deny(POST)])
def test_where_no_rule_decided_none_is_named(text: str) -> None:
    assert _evaluate(text).policy is None


def test_of_several_rules_that_match_the_first_by_id_decides_as_in_envoy() -> None:
    rules = ", ".join([POST, POST, GET] + [POST] * 7 + [GET])

    for make in (_allow, _deny):
        policy = _evaluate(make(rules, "b") + make(GET, "c")).policy
        assert policy is not None
        assert policy.id == "ns[apps]-policy[b]-rule[10]"  # as text, 10 comes before 2
        policy = _evaluate(make(rules, "b") + make(GET, "a")).policy
        assert policy is not None
        assert policy.id == "ns[apps]-policy[a]-rule[0]"


def test_what_could_not_be_read_is_named() -> None:
    assert "ipBlocks" in _evaluate(_deny(DARK)).detail
    assert "ipBlocks" in _evaluate(_allow(DARK)).detail


@pytest.mark.parametrize("text", ["", _allow(GET), _deny(GET), _allow(DARK) + _allow(GET, "other")])
def test_where_everything_that_mattered_was_read_nothing_is_said(text: str) -> None:
    assert _evaluate(text).detail == ""


# --- AUDIT ------------------------------------------------------------------------------------------------------------


def _audit(rules: str, name: str = "look") -> str:
    return authorization(f"{{action: AUDIT, rules: [{rules}]}}", name)


@pytest.mark.parametrize("rule", [GET, POST, DARK, "{}"])
@pytest.mark.parametrize("text", ["", _allow(GET), _allow(POST), _deny(GET), _deny(POST), _deny(DARK) + _allow(GET)])
def test_an_audit_policy_changes_nothing_but_the_report(text: str, rule: str) -> None:
    plain, audited = _evaluate(text), _evaluate(text + _audit(rule))

    assert plain.audit is None
    assert replace(audited, audit=None, audit_rules=()) == plain
    assert [trace.action for trace in audited.audit_rules] == [Action.AUDIT]
    assert (audited.audit is None) == (rule == POST)


def test_the_first_audit_rule_that_matches_or_cannot_be_read_is_named() -> None:
    for rules, expected in ((f"{POST}, {GET}, {GET}", 1), (f"{POST}, {DARK}, {GET}", 1), (f"{POST}, {POST}", None)):
        audit = _evaluate(_audit(rules)).audit
        assert (None if audit is None else audit.id) == (
            None if expected is None else f"ns[apps]-policy[look]-rule[{expected}]"
        )


def test_an_audit_policy_is_no_allow_policy() -> None:
    assert _evaluate(_audit(GET)).outcome is AllowReason.NO_ALLOW_POLICY
    assert _evaluate(_audit(GET) + _allow(POST)).outcome is Reason.NO_ALLOW_RULE_MATCHED


# --- dry run ----------------------------------------------------------------------------------------------------------


def _tried(text: str) -> str:
    return text.replace("metadata: {", "metadata: {annotations: {istio.io/dry-run: 'true'}, ")


@pytest.mark.parametrize(
    ("enforced", "tried", "would", "policy"),
    [
        ("", _allow(GET), AllowReason.RULE_MATCHED, "rule"),
        ("", _allow(POST), Reason.NO_ALLOW_RULE_MATCHED, None),
        ("", _deny(GET), Reason.DENY_RULE_MATCHED, "stop"),
        ("", _deny(POST), AllowReason.NO_ALLOW_POLICY, None),
        ("", _deny(DARK), Reason.DENY_RULE_MATCHED, "stop"),
        ("", _deny(GET) + _allow(GET), Reason.DENY_RULE_MATCHED, "stop"),
        ("", _deny(POST) + _allow(GET), AllowReason.RULE_MATCHED, "rule"),
        (_allow(GET, "now"), _deny(GET), Reason.DENY_RULE_MATCHED, "stop"),
        (_allow(POST, "now"), _allow(GET), AllowReason.RULE_MATCHED, "rule"),
        (_deny(GET, "now"), _allow(GET), Reason.DENY_RULE_MATCHED, "now"),
        (_allow(GET, "now"), _allow(POST), AllowReason.RULE_MATCHED, "now"),
        (_allow(POST, "now"), _deny(POST), Reason.NO_ALLOW_RULE_MATCHED, None),
    ],
)
def test_a_dry_run_is_judged_together_with_what_is_in_force_and_changes_nothing(
    enforced: str, tried: str, would: AllowReason | Reason, policy: str | None
) -> None:
    plain, found = _evaluate(enforced), _evaluate(enforced + _tried(tried))

    assert plain.dry_run is None
    assert replace(found, dry_run=None, tried_rules=()) == plain
    assert found.dry_run is not None
    assert found.dry_run.reason is would
    assert found.dry_run.allowed is isinstance(would, AllowReason)
    assert (None if found.dry_run.policy is None else found.dry_run.policy.id) == (
        None if policy is None else f"ns[apps]-policy[{policy}]-rule[0]"
    )


def test_the_trace_of_a_dry_run_is_all_of_its_rules_and_no_others() -> None:
    found = _evaluate(_deny(POST) + _tried(_allow(f"{GET}, {POST}", "tried")))

    assert [(trace.policy.id, trace.outcome) for trace in found.tried_rules] == [
        ("ns[apps]-policy[tried]-rule[0]", Outcome.MATCH),
        ("ns[apps]-policy[tried]-rule[1]", Outcome.NO_MATCH),
    ]
    assert [trace.policy.id for trace in found.rules] == ["ns[apps]-policy[stop]-rule[0]"]


def test_a_tried_allow_does_not_switch_to_default_deny() -> None:
    found = _evaluate(_tried(_allow(POST)))

    assert found.outcome is AllowReason.NO_ALLOW_POLICY
    assert found.dry_run is not None
    assert not found.dry_run.allowed


def test_a_dry_run_of_false_is_in_force() -> None:
    text = _deny(GET).replace("metadata: {", "metadata: {annotations: {istio.io/dry-run: 'false'}, ")

    assert _evaluate(text).outcome is Reason.DENY_RULE_MATCHED
    assert _evaluate(text).dry_run is None


# --- CUSTOM -----------------------------------------------------------------------------------------------------------


def _custom(rules: str, name: str = "ask") -> str:
    return authorization(f"{{action: CUSTOM, provider: {{name: p}}, rules: [{rules}]}}", name)


@pytest.mark.parametrize(
    ("rules", "expected"),
    [(GET, 0), (POST, None), (DARK, 0), (f"{POST}, {GET}", 1), (f"{POST}, {DARK}, {GET}", 1), ("{}", 0)],
)
def test_the_first_custom_rule_that_matches_or_cannot_be_read_asks(rules: str, expected: int | None) -> None:
    found = custom(scoped(_custom(rules)).http, SEEN)

    assert (None if found is None else found.id) == (
        None if expected is None else f"ns[apps]-policy[ask]-rule[{expected}]"
    )


def test_custom_policies_are_no_part_of_the_decision_after_them() -> None:
    assert custom(scoped(_allow(GET) + _deny(GET)).http, SEEN) is None
    assert _evaluate(_custom("{}")) == _evaluate("")
    assert _evaluate(_custom("{}") + _allow(POST)).outcome is Reason.NO_ALLOW_RULE_MATCHED


# --- the trace --------------------------------------------------------------------------------------------------------


def test_the_trace_has_every_rule_that_was_asked_and_none_after() -> None:
    found = _evaluate(_deny(POST) + _allow(f"{POST}, {GET}, {GET}", "rule"))

    assert [(trace.policy.id, trace.action, trace.outcome) for trace in found.rules] == [
        ("ns[apps]-policy[stop]-rule[0]", Action.DENY, Outcome.NO_MATCH),
        ("ns[apps]-policy[rule]-rule[0]", Action.ALLOW, Outcome.NO_MATCH),
        ("ns[apps]-policy[rule]-rule[1]", Action.ALLOW, Outcome.MATCH),
    ]


def test_the_trace_of_a_rule_has_every_field_in_the_order_of_the_file() -> None:
    text = (
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: apps}\nspec:\n"
        "  rules:\n  - from:\n    - source:\n        principals: [a, '*']\n        notNamespaces: [edge]\n"
        "    - source:\n        namespaces: [edge]\n    to:\n    - operation:\n        paths: [/x]\n    when:\n"
        "    - key: request.headers[:method]\n      values: [GET]\n"
    )

    (trace,) = _evaluate(text).rules

    assert [(term.field, term.wanted, term.outcome, term.source) for term in trace.terms] == [
        ("principals", ("a", "*"), Outcome.MATCH, "policy.yaml:8"),
        ("notNamespaces", ("edge",), Outcome.NO_MATCH, "policy.yaml:9"),
        ("namespaces", ("edge",), Outcome.MATCH, "policy.yaml:11"),
        ("paths", ("/x",), Outcome.NO_MATCH, "policy.yaml:14"),
        ("request.headers[:method]", ("GET",), Outcome.MATCH, "policy.yaml:17"),
    ]
    assert (len(trace.sources), len(trace.operations), len(trace.conditions)) == (2, 1, 1)


@pytest.mark.parametrize("posture", Posture)
def test_both_postures_decide_alike_where_there_is_one_reading(posture: Posture) -> None:
    seen = evidence(facts(path="/a/b", source="10.0.0.1"), posture=posture)
    rule = "{from: [{source: {ipBlocks: [10.0.0.0/8]}}], to: [{operation: {paths: [/a/*], hosts: [SHOP.example]}}]}"

    assert _evaluate(_allow(rule), seen).outcome is AllowReason.RULE_MATCHED


def test_what_is_plainly_decided_has_no_detail() -> None:
    dark_or_get = "{from: [{source: {ipBlocks: [10.0.0.0/8]}}, {source: {principals: ['*']}}]}"

    assert _evaluate(_deny(dark_or_get)).detail == ""
    assert _evaluate(authorization("{}")).detail == ""
