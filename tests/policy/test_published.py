"""Tables of Istio's own unit tests (``unit-cases.yaml``) that are about more than one field."""

from typing import Final

import pytest
from countersign.core.jwt_rule import RemoteKeys
from countersign.policy.match import Outcome
from countersign.policy.spec import evaluate

from tests.support import vectors
from tests.support.requests import authorization, evidence, facts, load, request_authentication, scoped

CASES: Final = "istio/unit-cases.yaml"

# What the wildcards of the table mean, by the case's name: what they match, and what they just miss.
WILDCARDS: Final = {
    "exact": (("foo",), ("foo1", "1foo", "fo")),
    "presence": (("foo", "x", "*"), ()),
    "prefix": (("foo", "foo1"), ("1foo", "fo")),
    "suffix": (("foo", "1foo"), ("foo1", "oo")),
    "middle wildcard": (("fo*-bar",), ("foo-bar", "fo-bar", "fo*-bar1")),
    "multiple wildcards": (("fo*bar", "fo*bar1"), ("foobar", "foobar1", "fo*ba")),
}


def _rules(clause: str) -> str:
    return authorization(f"{{rules: [{clause}]}}")


def _matches(value: str, method: str) -> bool:
    policies = scoped(_rules(f"{{to: [{{operation: {{methods: ['{value}']}}}}]}}")).http
    (trace,) = evaluate(policies, evidence(facts(method=method))).rules
    return trace.outcome is Outcome.MATCH


def test_the_published_wildcards_of_istio() -> None:
    """`trustDomains` are checked by the table. Other fields take an inner `*` to the letter, and no empty value."""
    cases = {case["name"]: case for case in vectors.yaml_file(CASES)["wildcard_values"]}
    for case in cases.values():
        (value,) = case["values"]
        trust_domain = _rules(f"{{from: [{{source: {{trustDomains: ['{value}']}}}}]}}")
        if case.get("wantError"):
            with pytest.raises(ValueError, match="trustDomains"):
                load(trust_domain)
        else:
            assert load(trust_domain).authorization_policies
    for name, (hits, misses) in WILDCARDS.items():
        (value,) = cases.pop(name)["values"]
        assert [method for method in (*hits, *misses) if _matches(value, method)] == list(hits), value
    assert list(cases) == ["empty"]
    with pytest.raises(ValueError, match="methods"):
        _matches("", "GET")


def test_the_published_jwks_uris_of_istio() -> None:
    for case in vectors.yaml_file(CASES)["parse_jwks_uri"]:
        text = request_authentication(f"{{jwtRules: [{{issuer: i, jwksUri: '{case['in']}'}}]}}")
        if case.get("expectedError"):
            with pytest.raises(ValueError, match="jwksUri"):
                load(text)
        else:
            (policy,) = load(text).request_authentications
            assert [rule.keys for rule in policy.rules] == [RemoteKeys(case["in"])], case


@pytest.mark.parametrize("key", ["request.headers", "experimental.envoy.filters.x"])
def test_the_published_names_in_brackets_of_istio(key: str) -> None:
    for case in vectors.yaml_file(CASES)["claim_name_single_bracket"]:
        text = _rules(f"{{when: [{{key: '{key}{case['s']}', values: [v]}}]}}")
        if case.get("err") or not case["want"]:  # the validator refuses an empty name, and so do we
            with pytest.raises(ValueError, match=key.replace(".", r"\.")):
                load(text)
        else:
            (policy,) = load(text).authorization_policies
            (((term,),),) = (rule.conditions for rule in policy.rules)
            assert term.argument[-1] == case["want"], case
