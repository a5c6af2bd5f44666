"""Which rule came closest, and what a default deny says of it."""

import pytest
from countersign.core.decision import PolicyRef
from countersign.policy.match import Outcome
from countersign.policy.resources import Action
from countersign.policy.spec import evaluate
from countersign.policy.trace import RuleTrace, TermTrace, nearest

from tests.support.requests import authorization, evidence, facts, scoped

NO, MAYBE, YES = Outcome.NO_MATCH, Outcome.UNREADABLE, Outcome.MATCH


def _rule(name: str, *terms: Outcome, action: Action = Action.ALLOW) -> RuleTrace:
    traces = tuple(
        TermTrace(field=f"f{i}", negated=False, wanted=("x",), got="y", outcome=outcome, source="f:1")
        for i, outcome in enumerate(terms)
    )
    ref = PolicyRef(id=name, source="f:1")
    conditions = tuple((term,) for term in traces)
    return RuleTrace(policy=ref, action=action, outcome=min(terms), sources=(), operations=(), conditions=conditions)


@pytest.mark.parametrize(
    ("rules", "name"),
    [
        ([_rule("two", NO, NO), _rule("one", NO, YES)], "one"),
        ([_rule("one", NO), _rule("same", NO)], "one"),
        ([_rule("less", NO), _rule("more", NO, YES, YES)], "more"),
        ([_rule("no", NO), _rule("dark", MAYBE, MAYBE)], "dark"),
        ([_rule("dark", MAYBE, MAYBE), _rule("no", NO)], "dark"),
        ([_rule("deny", NO, action=Action.DENY), _rule("allow", NO, NO)], "allow"),
        ([_rule("matched", YES), _rule("missed", NO, NO)], "missed"),
    ],
)
def test_the_nearest_rule_is_unreadable_or_has_least_in_its_way(rules: list[RuleTrace], name: str) -> None:
    found = nearest(rules)

    assert found is not None
    assert found.rule.policy.id == name
    assert all(term.outcome is not YES for term in found.terms)


def test_without_an_allow_rule_there_is_no_nearest() -> None:
    assert nearest([]) is None
    assert nearest([_rule("deny", NO, action=Action.DENY)]) is None


def test_a_default_deny_names_the_rule_and_its_fields_and_no_value() -> None:
    operation = "to: [{operation: {methods: [GET], paths: [/a], hosts: [h]}}]"
    spec = f"{{rules: [{{{operation}, when: [{{key: source.ip, values: [1.1.1.1]}}]}}]}}"
    seen = evidence(facts(method="PUT", path="/b", host="h"))

    detail = evaluate(scoped(authorization(spec)).http, seen).detail

    assert detail == "nearest: ns[apps]-policy[rule]-rule[0] (policy.yaml:4), but for methods, paths, source.ip"


def test_an_unreadable_rule_is_said_to_be_so_for_each_of_its_fields() -> None:
    spec = "{action: %s, rules: [{from: [{source: {ipBlocks: [10.0.0.0/8]}}], to: [{operation: {ports: ['1']}}]}]}"
    seen = evidence(facts(source="", port=0))
    said = "ipBlocks, ports: read in more than one way, or not at all"

    assert evaluate(scoped(authorization(spec % "DENY")).http, seen).detail == said
    assert evaluate(scoped(authorization(spec % "ALLOW")).http, seen).detail == said
    assert evaluate(scoped(authorization(spec % "DENY")).http, evidence(facts(source="10.1.1.1", port=1))).detail == ""


def test_a_trace_says_what_is_negated() -> None:
    spec = "{rules: [{to: [{operation: {methods: [GET], notPaths: [/a]}}]}]}"
    (rule,) = evaluate(scoped(authorization(spec)).http, evidence(facts(path="/b"))).rules

    assert [(term.field, term.negated) for term in rule.terms] == [("methods", False), ("notPaths", True)]
