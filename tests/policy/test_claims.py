"""What the user's token says: the published attacks; every attribute has its table in test_attributes.py."""

from dataclasses import replace
from typing import Any, Final

import pytest
from countersign.core.decision import AllowReason
from countersign.core.facts import Endpoint, RequestFacts
from countersign.policy.match import Outcome
from countersign.policy.spec import evaluate
from countersign.policy.terms.evidence import Evidence

from tests.support import vectors
from tests.support.requests import authorization, evidence, load, scoped, token

# Rows of the table that leave the choice open: what we decide, and why.
DECIDED: Final = {
    "ALLOW claims[level] in ['5'] {\"level\": 5}": "deny",  # Istio: a number is no text
    "ALLOW notValues claims[groups] [banned] {}": "allow",  # Istio: a `not` holds where the claim is absent
    "'https://a'+'b/c' vs 'https://a/b/c'": "deny",  # the pair is compared, cut at the last slash
    "'x'+'*' vs 'x/*'": "allow",  # `x/*` is any subject of x, and `*` is one
    "'i'+'' vs 'i/'": "allow",  # `i/` names the empty subject, as in Istio; `*` never does
}


def _rule(policy: str) -> str:
    """The rule of a row, in YAML."""
    if policy.startswith("ALLOW requestPrincipals:"):
        value = policy.removeprefix("ALLOW requestPrincipals:[").removesuffix("]")
        return f"{{from: [{{source: {{requestPrincipals: ['{value}']}}}}]}}"
    rest = policy.removeprefix("ALLOW ").removeprefix("notValues ").removeprefix("request.auth.")
    key, _, values = rest.replace(" in ", " ").partition(" ")
    field = "notValues" if "notValues" in policy else "values"
    return f"{{when: [{{key: 'request.auth.{key}', {field}: {values}}}]}}"


def _seen(request: dict[str, Any]) -> Evidence:
    if "claims" in request:
        return evidence(token=replace(token(), claims=request["claims"]))
    return evidence(token=token(request["iss"], request["sub"]))


def test_the_published_attacks_by_claims_and_request_principals() -> None:
    cases = vectors.json_file("vectors/requests/authz_request_attacks.json")["cases"]
    rows = [case for case in cases if case["category"] in {"claim", "requestPrincipal"}]
    policy = ""

    for row in rows:
        policy = policy if row["policy"] == "same" else row["policy"]
        outcome = evaluate(scoped(authorization(f"{{rules: [{_rule(policy)}]}}")).http, _seen(row["request"])).outcome
        expected = DECIDED.get(row["name"], row["expect"])
        assert ("allow" if isinstance(outcome, AllowReason) else "deny") == expected, row
    assert len(rows) == 28
    assert DECIDED.keys() <= {row["name"] for row in rows}


@pytest.mark.parametrize("key", ["source.principal", "request.auth.principal", "request.auth.claims[a]"])
def test_on_a_connection_nobody_is_a_user(key: str) -> None:
    """A term about the user may be asked by `explain`; a connection has no token."""
    tcp = RequestFacts(http=None, source=Endpoint(address="10.0.0.1"), destination=Endpoint(address="10.0.0.2"))
    text = authorization(f"{{rules: [{{when: [{{key: '{key}', values: ['*']}}]}}]}}")

    (trace,) = evaluate(scoped(text).http, evidence(tcp, peer=None)).rules

    assert trace.outcome is Outcome.NO_MATCH
    assert load(text).authorization_policies
