"""Pseudo-headers read as the path and the host that they are; every attribute has its table in test_attributes.py."""

from typing import Final

import pytest
from countersign.core.facts import RequestFacts
from countersign.core.posture import Posture
from countersign.policy.match import Outcome
from countersign.policy.resources import Action
from countersign.policy.spec import evaluate

from tests.support.requests import authorization, evidence, facts, scoped

NO, MAYBE, YES = Outcome.NO_MATCH, Outcome.UNREADABLE, Outcome.MATCH
STRICT, ISTIO = Posture.STRICT, Posture.ISTIO
ACTIONS: Final = (Action.ALLOW, Action.DENY)


def _outcome(
    key: str, value: str, request: RequestFacts, posture: Posture, action: Action, *, negated: bool = False
) -> Outcome:
    field = "notValues" if negated else "values"
    rule = f"{{when: [{{key: 'request.headers[{key}]', {field}: ['{value}']}}]}}"
    text = authorization(f"{{action: {action}, rules: [{rule}]}}")
    (trace,) = evaluate(scoped(text).http, evidence(request, posture=posture)).rules
    return trace.outcome


@pytest.mark.parametrize("path", ["//admin", "/x/../admin", "/%61dmin", "/admin;x", "/x/..%2fadmin"])
@pytest.mark.parametrize("query", ["", "?a=b", "?a=/../x"])
def test_the_path_header_has_the_readings_of_the_path_and_keeps_its_query(path: str, query: str) -> None:
    request = facts(path=path + query)

    for action in ACTIONS:
        assert _outcome(":path", f"/admin{query}", request, STRICT, action) is MAYBE
        assert _outcome(":path", f"/admin{query}", request, STRICT, action, negated=True) is MAYBE
        assert _outcome(":path", f"/admin{query}", request, ISTIO, action) is NO
        assert _outcome(":path", f"/admin{query}", request, ISTIO, action, negated=True) is YES
        assert _outcome(":path", "/*", request, STRICT, action) is YES
        assert _outcome(":path", "/other*", request, STRICT, action) is NO
        if query:
            assert _outcome(":path", "/admin", request, STRICT, action) is NO  # the query is part of this header


def test_a_comma_in_a_path_is_a_character() -> None:
    for action in ACTIONS:
        assert _outcome(":path", "/a,b", facts(path="/a,b", joined=True), STRICT, action) is YES
        assert _outcome(":path", "/a", facts(path="/a,b", joined=True), STRICT, action) is NO


@pytest.mark.parametrize("key", [":authority", "Host"])
@pytest.mark.parametrize("host", ["shop.example:8443", "shop.example.", "shop.example.:8443"])
def test_a_deny_means_the_authority_in_every_form_and_an_allow_as_written(key: str, host: str) -> None:
    request = facts(host=host)

    assert _outcome(key, "shop.example", request, STRICT, Action.DENY) is MAYBE
    assert _outcome(key, "shop.example", request, STRICT, Action.ALLOW) is NO
    assert _outcome(key, host, request, STRICT, Action.ALLOW) is YES
    assert _outcome(key, "shop.example", request, STRICT, Action.ALLOW, negated=True) is MAYBE
    assert _outcome(key, "shop.example", request, STRICT, Action.DENY, negated=True) is MAYBE
    assert _outcome(key, "*", request, STRICT, Action.ALLOW) is YES
    for action in ACTIONS:
        assert _outcome(key, "shop.example", request, ISTIO, action) is NO
        assert _outcome(key, host, request, ISTIO, action) is YES


def test_an_authority_that_is_not_utf_8_cannot_be_read() -> None:
    for action in ACTIONS:
        assert _outcome(":authority", "*", facts(host="shop\udcff"), STRICT, action) is MAYBE
        assert _outcome(":authority", "*", facts(host="shop"), STRICT, action) is YES


def test_the_authority_is_compared_in_its_case_as_in_istio() -> None:
    for posture in Posture:
        assert _outcome(":authority", "shop.example", facts(host="Shop.example"), posture, Action.ALLOW) is NO
        assert _outcome(":authority", "Shop.example", facts(host="Shop.example"), posture, Action.ALLOW) is YES


def test_lines_of_a_header_are_joined_by_a_comma_alone() -> None:
    rule = "{when: [{key: 'request.headers[x-role]', values: ['a,b']}]}"
    allow = scoped(authorization(f"{{rules: [{rule}]}}")).http
    deny = scoped(authorization(f"{{action: DENY, rules: [{rule}]}}")).http
    twice, once = evidence(facts(("x-role", "a"), ("x-role", "b"))), evidence(facts(("x-role", "a,b")))

    assert evaluate(deny, twice).outcome == evaluate(deny, once).outcome == "deny-rule-matched"
    assert evaluate(allow, twice).outcome == "no-allow-rule-matched"
    assert evaluate(allow, once).outcome == "allow-rule-matched"


@pytest.mark.parametrize("line", ["v\xa0", "\u2003v", "Xv", "vX", "\x0bv"])
def test_only_spaces_and_tabs_around_a_value_are_none_of_it(line: str) -> None:
    """RFC 9110 5.6.3: whatever else stands there is the value's."""
    for action in ACTIONS:
        assert _outcome("x-a", "v", facts(("x-a", line)), STRICT, action) is NO
        assert _outcome("x-a", "v", facts(("x-a", " v\t")), STRICT, action) is MAYBE
