"""Which rules are asked: those that could match, in order, and all of them where there are few."""

from typing import Final

import pytest
from countersign.policy.index import FEW, RuleIndex
from countersign.policy.resources import Clause, Rule, Term
from countersign.policy.terms.evidence import Evidence

from tests.support.requests import evidence, facts, token

PEER: Final = "source.principal"
PATH: Final = "operation.path"
METHOD: Final = "operation.method"
GROUPS: Final = "request.auth.claims"


def _term(attribute: str, *values: str) -> Term:
    argument = ("groups",) if attribute == GROUPS else ()
    return Term(attribute=attribute, argument=argument, field="f", values=values, negated=False, source="f:1")


def _condition(attribute: str, *values: str) -> Clause:
    return (_term(attribute, *values),)


def _asked(rules: list[Rule], seen: Evidence, few: int = 0) -> list[int]:
    return list(RuleIndex(rules, ("td",), few).candidates(seen))


def _by(attribute: str, *values: str) -> list[Rule]:
    """A rule for each value."""
    return [
        Rule(index=index, conditions=(_condition(attribute, value),), source="f:1")
        for index, value in enumerate(values)
    ]


@pytest.mark.parametrize(("many", "asked"), [(FEW, list(range(FEW))), (FEW + 1, [3])])
def test_few_rules_are_all_asked(many: int, asked: list[int]) -> None:
    assert _asked(_by(PATH, *(f"/{number}" for number in range(many))), evidence(facts(path="/3")), FEW) == asked


def test_rules_that_require_different_things_are_found_side_by_side() -> None:
    rules = [
        Rule(index=0, conditions=(_condition(PATH, "/a"),), source="f:1"),
        Rule(index=1, conditions=(_condition(METHOD, "PUT"),), source="f:1"),
        Rule(index=2, conditions=(_condition(PEER, "td/ns/a/sa/x"),), source="f:1"),
        Rule(index=3, source="f:1"),
    ]

    def asked(path: str, method: str, peer: str) -> list[int]:
        return _asked(rules, evidence(facts(path=path, method=method), peer=f"spiffe://td/ns/{peer}/sa/x"))

    assert asked("/a", "PUT", "a") == [0, 1, 2, 3]
    assert asked("/a", "GET", "b") == [0, 3]
    assert asked("/b", "PUT", "b") == [1, 3]
    assert asked("/b", "GET", "a") == [2, 3]


def test_of_several_conditions_the_rarest_counts_wherever_it_stands() -> None:
    conditions = [(_condition(PATH, f"/{number}"), _condition(METHOD, "GET")) for number in range(3)]
    first = [Rule(index=index, conditions=each, source="f:1") for index, each in enumerate(conditions)]
    last = [Rule(index=index, conditions=each[::-1], source="f:1") for index, each in enumerate(conditions)]

    assert _asked(first, evidence(facts(path="/1"))) == _asked(last, evidence(facts(path="/1"))) == [1]


def test_a_rule_is_found_by_its_operations_alone_and_by_its_sources_alone() -> None:
    operations = [Rule(index=n, operations=(_condition(PATH, f"/{n}"),), source="f:1") for n in range(3)]
    sources = [Rule(index=n, sources=(_condition(PEER, f"td/ns/n{n}/sa/x"),), source="f:1") for n in range(3)]

    assert _asked(operations, evidence(facts(path="/1"))) == [1]
    assert _asked(sources, evidence(peer="spiffe://td/ns/n1/sa/x")) == [1]


def test_a_rule_is_found_by_each_of_its_alternatives() -> None:
    both = Rule(index=0, operations=(_condition(PATH, "/a"), _condition(PATH, "/b", "/c")), source="f:1")
    one = Rule(index=1, operations=(_condition(PATH, "/a"), _condition(METHOD, "PUT")), source="f:1")

    for path, asked in (("/a", [0, 1]), ("/b", [0, 1]), ("/c", [0, 1]), ("/d", [1])):
        assert _asked([both, one], evidence(facts(path=path))) == asked


@pytest.mark.parametrize(
    ("values", "groups", "asked"),
    [
        (("a*", "*z", "m"), ["a", "z", "m"], [0, 1, 2]),
        (("a*", "*z", "m"), ["az"], [0, 1]),
        (("abc*", "*xyz", "m"), ["ab", "yz", "m"], [2]),
        (("abcdef*", "*b", "ab*"), ["ab"], [1, 2]),
        (("*abcdef", "b", "*ab"), ["ab", "b"], [1, 2]),
        (("*yz", "*z", "z*"), ["z"], [1, 2]),
        (("abc*", "b"), ["a", "b"], [1]),
    ],
)
def test_exact_values_prefixes_and_suffixes_are_found_side_by_side(
    values: tuple[str, ...], groups: list[str], asked: list[int]
) -> None:
    assert _asked(_by(GROUPS, *values), evidence(token=token(groups=groups))) == asked
