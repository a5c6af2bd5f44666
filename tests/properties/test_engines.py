"""Two engines, one meaning: the one that serves decides as the definition does, with its index and without."""

from typing import Any, Final

import pytest
from countersign.core.facts import RequestFacts
from countersign.core.identity import Identity, VerifiedToken
from countersign.core.posture import Posture
from countersign.core.spiffe import SpiffeId, SpiffeIdError
from countersign.policy.actions import by_action
from countersign.policy.compile import CompiledPolicies
from countersign.policy.index import FEW, RuleIndex
from countersign.policy.resources import AuthorizationPolicy, Meta, Rule, Term
from countersign.policy.spec import custom, evaluate
from countersign.policy.terms.evidence import Evidence
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.generated import POLICIES, REQUESTS
from tests.support.requests import evidence, facts, token

TRUST_DOMAINS: Final = ("td", "old")
CLAIMS: Final = st.fixed_dictionaries(
    {},
    optional={
        "a": st.sampled_from(["a", "b", ["a", 1], {"b": "a"}, {"b": ["x", "a"]}, 5, None, True]),
        "aud": st.sampled_from(["i", ["i", "j"], []]),
        "azp": st.sampled_from(["i", ""]),
    },
)


def _token(issuer: str, subject: str | None, claims: dict[str, Any]) -> VerifiedToken:
    return token(issuer, subject, **claims)


TOKENS: Final = st.none() | st.builds(
    _token, issuer=st.sampled_from(["i", "i/s", ""]), subject=st.sampled_from(["s", "", None]), claims=CLAIMS
)


def _evidence(request: RequestFacts, posture: Posture, user: VerifiedToken | None) -> Evidence:
    try:
        peer = SpiffeId.parse(request.source.principal)
    except SpiffeIdError:
        peer = None
    return Evidence(
        facts=request,
        identity=Identity(peer=peer, token=user),
        posture=posture,
        trust_domains=TRUST_DOMAINS,
        remote_ip=request.source.address,
    )


@settings(max_examples=600, deadline=None)
@given(POLICIES, REQUESTS, TOKENS, st.sampled_from(Posture), st.sampled_from([0, 2, FEW, 1000]))
def test_the_compiled_engine_decides_as_the_definition(
    policies: tuple[AuthorizationPolicy, ...],
    request: RequestFacts,
    user: VerifiedToken | None,
    posture: Posture,
    few: int,
) -> None:
    grouped = by_action(policies)
    compiled = CompiledPolicies(grouped, posture, TRUST_DOMAINS, few)
    seen = _evidence(request, posture, user)
    expected, found = evaluate(grouped, seen), compiled.evaluate(seen)

    assert (found.outcome, found.policy, found.audit, found.dry_run) == (
        expected.outcome,
        expected.policy,
        expected.audit,
        expected.dry_run,
    )
    assert compiled.custom(seen) == custom(grouped, seen)
    assert compiled.asks_custom == bool(grouped.custom)


def _rules(attribute: str, values: list[str], argument: tuple[str, ...] = ()) -> tuple[Rule, ...]:
    terms = (
        Term(attribute=attribute, argument=argument, field="f", values=(value,), negated=False, source="f:1")
        for value in values
    )
    return tuple(Rule(index=i, conditions=((term,),), source="f:1") for i, term in enumerate(terms))


@pytest.mark.parametrize(
    ("attribute", "argument", "values", "seen"),
    [
        ("operation.path", (), [f"/a/{n}" for n in range(1000)], {"path": "/a/500"}),
        ("operation.path", (), [f"/a/{n}/*" for n in range(1000)], {"path": "/a/500/x"}),
        ("operation.path", (), [f"*/x/{n}" for n in range(1000)], {"path": "/y/x/500"}),
        ("operation.path", (), [f"/a/{n}/{{*}}/b" for n in range(1000)], {"path": "/a/500/x/b"}),
        ("operation.path", (), [f"/a/{n}" for n in range(1000)], {"path": "/a//b/../500"}),
        ("operation.host", (), [f"h{n}.example" for n in range(1000)], {"host": "H500.example:80"}),
        ("source.ip", (), [f"10.{n // 250}.{n % 250}.0/24" for n in range(1000)], {"source": "10.2.0.9"}),
        ("source.ip", (), [f"10.{n // 250}.{n % 250}.0/24" for n in range(1000)], {"source": "::ffff:10.2.0.9"}),
        ("destination.port", (), [str(n) for n in range(1000)], {"port": 500}),
    ],
)
def test_of_a_thousand_rules_only_those_that_could_match_are_asked(
    attribute: str, argument: tuple[str, ...], values: list[str], seen: dict[str, Any]
) -> None:
    index = RuleIndex(_rules(attribute, values, argument), ("td",))

    assert list(index.candidates(evidence(facts(**seen)))) == [500]


@pytest.mark.parametrize(
    ("attribute", "argument", "values"),
    [
        ("source.principal", (), [f"td/ns/n{n}/sa/x" for n in range(1000)]),
        ("source.principal", (), [f"td/ns/n{n}/*" for n in range(1000)]),
        ("source.namespace", (), [f"n{n}" for n in range(1000)]),
        ("request.auth.principal", (), [f"i/s{n}" for n in range(1000)]),
        ("request.auth.principal", (), [f"i/s{n}*" if n % 2 else f"i/s{n}" for n in range(1000)]),
        ("request.auth.claims", ("groups",), [f"g{n}" for n in range(1000)]),
        ("request.auth.audiences", (), [f"g{n}" for n in range(1000)]),
        ("request.headers", ("x-tenant",), [f"t{n}" for n in range(1000)]),
    ],
)
def test_identities_claims_and_headers_are_looked_up_too(
    attribute: str, argument: tuple[str, ...], values: list[str]
) -> None:
    index = RuleIndex(_rules(attribute, values, argument), ("td",))
    seen = evidence(
        facts(("x-tenant", "t500")),
        peer="spiffe://td/ns/n500/sa/x",
        token=token("i", "s500", groups=["g500", "other"], aud="g500"),
    )

    found = list(index.candidates(seen))
    assert 500 in found
    assert len(found) <= 501 if "*" in values[1] else found == [500]


def test_what_cannot_be_read_makes_every_rule_that_asks_for_it_a_candidate() -> None:
    by_path = _rules("operation.path", [f"/a/{n}" for n in range(20)])
    by_port = _rules("destination.port", [str(n) for n in range(20)])

    assert len(list(RuleIndex(by_path, ()).candidates(evidence(facts(path=""))))) == 20
    assert len(list(RuleIndex(by_port, ()).candidates(evidence(facts(port=0))))) == 20
    assert list(RuleIndex(by_path, ()).candidates(evidence(facts(path="/a/3")))) == [3]


def test_a_rule_is_filed_where_it_has_the_least_company() -> None:
    def rule(index: int, path: str) -> Rule:
        def term(attribute: str, value: str) -> Term:
            return Term(attribute=attribute, field="f", values=(value,), negated=False, source="f:1")

        return Rule(
            index=index,
            sources=((term("source.principal", "td/ns/a/sa/x"),),),
            operations=((term("operation.path", path), term("operation.method", "GET")),),
            source="f:1",
        )

    index = RuleIndex([rule(n, f"/{n}") for n in range(100)], ("td",))

    assert list(index.candidates(evidence(facts(path="/7"), peer="spiffe://td/ns/a/sa/x"))) == [7]


def test_a_negated_field_and_a_star_are_asked_always() -> None:
    negated = Term(attribute="operation.path", field="notPaths", values=("/a",), negated=True, source="f:1")
    star = Term(attribute="operation.method", field="methods", values=("*",), negated=False, source="f:1")
    rules = [
        *_rules("operation.path", [f"/{n}" for n in range(20)]),
        Rule(index=20, operations=((negated,), (star,)), source="f:1"),
        Rule(index=21, source="f:1"),
    ]

    assert list(RuleIndex(rules, ()).candidates(evidence(facts(path="/3")))) == [3, 20, 21]


def test_an_empty_workload_allows_and_an_empty_allow_denies() -> None:
    nothing = CompiledPolicies(by_action(()), Posture.STRICT, TRUST_DOMAINS)
    empty = AuthorizationPolicy(meta=Meta(name="n", namespace="ns", source="f:1"))
    denies = CompiledPolicies(by_action([empty]), Posture.STRICT, TRUST_DOMAINS)

    assert nothing.evaluate(evidence()).outcome == "no-allow-policy-applies"
    assert denies.evaluate(evidence()).outcome == "no-allow-rule-matched"


def test_a_suffix_longer_than_the_request_is_passed_over() -> None:
    rules = _rules("operation.path", [f"*/{n}/quite/long" for n in range(20)])

    assert list(RuleIndex(rules, ()).candidates(evidence(facts(path="/3")))) == []
    assert list(RuleIndex(rules, ()).candidates(evidence(facts(path="/x/3/quite/long")))) == [3]


def test_a_trust_domain_called_ns_hides_no_namespace_from_the_index() -> None:
    """Istio's pattern is matched against the whole ID, in which the trust domain stands behind a slash too."""
    index = RuleIndex(_rules("source.namespace", [f"n{n}" for n in range(20)]), ("ns",))

    assert list(index.candidates(evidence(peer="spiffe://ns/n7/x"))) == [7]
    assert list(index.candidates(evidence(peer="spiffe://td/ns/n7/sa/x"))) == [7]
    assert list(index.candidates(evidence(peer="spiffe://td/n7/x"))) == []
