"""Who the peer is: ``serviceAccounts`` and ``trustDomains``; the other two are in test_attributes.py."""

import time
from typing import Final

import pytest
from countersign.core.spiffe import SpiffeId
from countersign.policy.match import Outcome
from countersign.policy.spec import evaluate
from countersign.policy.terms.evidence import Evidence

from tests.support import vectors
from tests.support.requests import authorization, evidence, load, scoped

NO, YES = Outcome.NO_MATCH, Outcome.MATCH
WEB: Final = "spiffe://cluster.local/ns/edge/sa/web"


def _outcome(rule: str, seen: Evidence, namespace: str = "apps") -> Outcome:
    (trace,) = evaluate(scoped(authorization(f"{{rules: [{rule}]}}", namespace=namespace)).http, seen).rules
    return trace.outcome


def _source(field: str, *values: str) -> str:
    return f"{{from: [{{source: {{{field}: [{', '.join(map(repr, values))}]}}}}]}}"


def _when(key: str, *values: str) -> str:
    return f"{{when: [{{key: {key}, values: [{', '.join(map(repr, values))}]}}]}}"


def _all_ways(field: str, key: str, values: tuple[str, ...], seen: Evidence, expected: Outcome) -> None:
    assert _outcome(_source(field, *values), seen) is expected
    assert _outcome(_when(key, *values), seen) is expected
    assert _outcome(_source(f"not{field[0].upper()}{field[1:]}", *values), seen) is (NO if expected is YES else YES)


# --- service accounts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "value", "expected"),
    [
        (WEB, "edge/web", YES),
        (WEB, "edge/we", NO),
        (WEB, "edge/eb", NO),
        (WEB, "dge/web", NO),
        (WEB, "apps/web", NO),
        (WEB, "web", NO),  # a bare name is of the policy's namespace, apps
        ("spiffe://cluster.local/ns/apps/sa/web", "web", YES),
        ("spiffe://cluster.local/ns/apps/sa/web", "apps/web", YES),
        ("spiffe://foreign/ns/edge/sa/web", "edge/web", YES),  # in any trust domain that may connect at all
        ("spiffe://cluster.local/ns/edge/sa/web-2", "edge/web", NO),
        ("spiffe://cluster.local/ns/edge/sa/web/pod/x", "edge/web", YES),
        ("spiffe://cluster.local/ns/edge/region/r/sa/web", "edge/web", YES),
        ("spiffe://cluster.local/cluster/c/ns/edge/sa/web", "edge/web", YES),
        ("spiffe://cluster.local/ns/edge/nosa/web", "edge/web", NO),
        ("spiffe://cluster.local/ns/edge/x/sa/web/y/z", "edge/web", YES),
        ("spiffe://cluster.local/ns/a/sa/myXsvc", "a/my.svc", NO),  # CVE-2026-39350: a dot is a dot
        ("spiffe://cluster.local/ns/a/sa/my.svc", "a/my.svc", YES),
        ("spiffe://cluster.local/ns/aXb/sa/s", "a.b/s", NO),
        ("spiffe://cluster.local/ns/edge/sa/WEB", "edge/web", NO),
    ],
)
def test_a_service_account_is_a_name_in_a_namespace(peer: str, value: str, expected: Outcome) -> None:
    seen = evidence(peer=peer)

    _all_ways("serviceAccounts", "source.serviceAccount", (value,), seen, expected)
    _all_ways("serviceAccounts", "source.serviceAccount", ("none/none", value), seen, expected)


def test_a_bare_name_is_of_the_policys_namespace_not_of_the_workloads() -> None:
    mesh_wide = _source("serviceAccounts", "web")

    assert _outcome(mesh_wide, evidence(peer="spiffe://cluster.local/ns/istio-system/sa/web"), "istio-system") is YES
    assert _outcome(mesh_wide, evidence(peer="spiffe://cluster.local/ns/apps/sa/web"), "istio-system") is NO


@pytest.mark.parametrize(
    ("field", "key"), [("serviceAccounts", "source.serviceAccount"), ("trustDomains", "source.trustDomain")]
)
def test_nobody_has_neither_a_service_account_nor_a_trust_domain(field: str, key: str) -> None:
    _all_ways(field, key, ("a",), evidence(peer=None), NO)


def test_a_service_account_is_found_in_a_long_id_in_no_time() -> None:
    peer = "spiffe://td" + "/ns/a" * 300 + "/sa/b"
    before = time.perf_counter()

    assert _outcome(_source("serviceAccounts", "a/c"), evidence(peer=peer)) is NO
    assert time.perf_counter() - before < 1


def test_the_published_attack_by_a_dot_in_a_service_account() -> None:
    cases = vectors.json_file("vectors/requests/authz_request_attacks.json")["cases"]
    (row,) = [case for case in cases if "serviceAccounts" in case["name"]]
    value = row["policy"].partition("serviceAccounts ")[2].removesuffix("]")

    assert row["expect"] == "deny"
    assert _outcome(_source("serviceAccounts", value), evidence(peer=row["request"]["principal"])) is NO


# --- trust domains ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("cluster.local", YES),
        ("cluster.loca", NO),
        ("luster.local", NO),
        ("cluster-local", NO),
        ("*", YES),
        ("cluster.*", YES),
        ("*.local", YES),
        ("cluster.local*", YES),
        ("*cluster.local", YES),
        ("*.loca", NO),
        ("luster.*", NO),
        ("foreign", NO),
    ],
)
def test_a_trust_domain_is_the_whole_authority_of_the_id(value: str, expected: Outcome) -> None:
    _all_ways("trustDomains", "source.trustDomain", (value,), evidence(peer=WEB), expected)
    _all_ways("trustDomains", "source.trustDomain", ("none", value), evidence(peer=WEB), expected)


def test_a_wildcard_of_a_trust_domain_ends_at_its_slash() -> None:
    assert _outcome(_source("trustDomains", "*web"), evidence(peer=WEB)) is NO
    assert _outcome(_source("trustDomains", "*local"), evidence(peer="spiffe://td/x.local/a")) is NO


def test_an_exact_trust_domain_of_the_mesh_means_all_of_its_names() -> None:
    names = ("new.example", "old.example")

    for peer in names:
        seen = evidence(peer=f"spiffe://{peer}/ns/a/sa/b", trust_domains=names)
        assert _outcome(_source("trustDomains", "new.example"), seen) is YES
        assert _outcome(_source("trustDomains", "old.example"), seen) is YES
        assert _outcome(_source("trustDomains", "foreign"), seen) is NO
    old = evidence(peer="spiffe://old.example/ns/a/sa/b", trust_domains=names)
    assert _outcome(_source("trustDomains", "new.*"), old) is NO  # a wildcard is taken as written
    assert _outcome(_source("trustDomains", "cluster.local"), old) is NO  # and cluster.local is no special name here


def test_what_a_trace_says_of_the_peer_is_its_id() -> None:
    for field in ("serviceAccounts", "trustDomains"):
        text = authorization(f"{{rules: [{_source(field, 'a')}]}}")
        (trace,) = evaluate(scoped(text).http, evidence(peer=WEB)).rules
        assert trace.terms[0].got == str(SpiffeId.parse(WEB))
        (trace,) = evaluate(scoped(text).http, evidence(peer=None)).rules
        assert trace.terms[0].got == "absent"


def test_the_published_trust_domain_values_of_istio() -> None:
    for case in vectors.yaml_file("istio/unit-cases.yaml")["trust_domain_values"]:
        text = authorization(f"{{rules: [{_source('trustDomains', *case['values'])}]}}")
        if case.get("wantError"):
            with pytest.raises(ValueError, match="trustDomains"):
                load(text)
        else:
            assert load(text).authorization_policies


def test_each_of_several_trust_domains_counts() -> None:
    seen = evidence(peer=WEB)

    assert _outcome(_source("trustDomains", "cluster.local", "other"), seen) is YES
    assert _outcome(_source("trustDomains", "other", "cluster.local"), seen) is YES
    assert _outcome(_source("trustDomains", "other", "another"), seen) is NO


def test_a_peer_that_is_a_trust_domain_alone_is_of_some_trust_domain() -> None:
    seen = evidence(peer="spiffe://td")

    assert _outcome(_source("trustDomains", "*"), seen) is YES
    assert _outcome(_source("trustDomains", "t*"), seen) is NO  # Istio's pattern wants a path
    assert _outcome(_source("trustDomains", "td"), seen) is NO
