"""Every attribute that a rule can ask about, in both postures: what matches, what does not, what cannot be read."""

from typing import Any, Final

import pytest
from countersign.core.facts import Endpoint, RequestFacts
from countersign.core.posture import Posture
from countersign.policy.match import Outcome
from countersign.policy.resources import Action
from countersign.policy.spec import evaluate
from countersign.policy.terms.attributes import ATTRIBUTES, CONDITION_KEYS, OPERATION_FIELDS, SOURCE_FIELDS
from countersign.policy.terms.evidence import Evidence

from tests.support.requests import authorization, evidence, facts, scoped, token

NO, MAYBE, YES = Outcome.NO_MATCH, Outcome.UNREADABLE, Outcome.MATCH
STRICT, ISTIO = Posture.STRICT, Posture.ISTIO


def _trace(rule: str, seen: Evidence, action: Action = Action.ALLOW) -> Any:
    (trace,) = evaluate(scoped(authorization(f"{{action: {action}, rules: [{rule}]}}")).http, seen).rules
    return trace


def _field(field: str, *values: str) -> str:
    part, member = ("from", "source") if field in _SOURCE else ("to", "operation")
    quoted = ", ".join(f"'{value}'" for value in values)
    return f"{{{part}: [{{{member}: {{{field}: [{quoted}]}}}}]}}"


def _when(key: str, *values: str, negated: bool = False) -> str:
    quoted = ", ".join(f"'{value}'" for value in values)
    return f"{{when: [{{key: '{key}', {'notValues' if negated else 'values'}: [{quoted}]}}]}}"


_SOURCE: Final = {name for field in SOURCE_FIELDS for name in (field, f"not{field[0].upper()}{field[1:]}")}


def _outcome(rule: str, seen: Evidence, action: Action = Action.ALLOW) -> Outcome:
    return Outcome(_trace(rule, seen, action).outcome)


# --- the table itself -------------------------------------------------------------------------------------------------


def test_every_field_and_key_has_an_attribute() -> None:
    assert {*SOURCE_FIELDS.values(), *OPERATION_FIELDS.values()} <= ATTRIBUTES.keys()
    assert {key for key in ATTRIBUTES if not key.startswith("operation.")} == CONDITION_KEYS


# --- absent attributes ------------------------------------------------------------------------------------------------

NOBODY: Final = evidence(peer=None)


@pytest.mark.parametrize("posture", Posture)
@pytest.mark.parametrize(
    ("positive", "negative"),
    [
        (_field("principals", "*"), _field("notPrincipals", "*")),
        (_field("namespaces", "*"), _field("notNamespaces", "*")),
        (_field("requestPrincipals", "*"), _field("notRequestPrincipals", "*")),
        (_when("source.principal", "*"), _when("source.principal", "*", negated=True)),
        (_when("source.namespace", "*"), _when("source.namespace", "*", negated=True)),
        (_when("request.auth.principal", "*"), _when("request.auth.principal", "*", negated=True)),
        (_when("request.auth.audiences", "*"), _when("request.auth.audiences", "*", negated=True)),
        (_when("request.auth.presenter", "*"), _when("request.auth.presenter", "*", negated=True)),
        (_when("request.auth.claims[a]", "*"), _when("request.auth.claims[a]", "*", negated=True)),
        (_when("request.headers[x-none]", "*"), _when("request.headers[x-none]", "*", negated=True)),
    ],
)
def test_an_absent_attribute_matches_nothing_so_a_not_is_true(positive: str, negative: str, posture: Posture) -> None:
    seen = evidence(peer=None, posture=posture)

    assert _outcome(positive, seen) is NO
    assert _outcome(negative, seen) is YES


# --- the peer ---------------------------------------------------------------------------------------------------------

PEER: Final = "spiffe://cluster.local/ns/edge/sa/web"


@pytest.mark.parametrize(
    ("value", "outcome"),
    [
        ("cluster.local/ns/edge/sa/web", YES),
        ("cluster.local/ns/edge/sa/we", NO),
        ("cluster.local/ns/edge/sa/webb", NO),
        ("spiffe://cluster.local/ns/edge/sa/web", NO),  # as in Istio: a value with a scheme can never match
        ("cluster.local/ns/edge/*", YES),
        ("cluster.local/ns/e*", YES),
        ("cluster.local/ns/eg/*", NO),
        ("*/sa/web", YES),
        ("*web", YES),
        ("*xweb", NO),
        ("*//cluster.local/ns/edge/sa/web", NO),
        ("*", YES),
        ("cluster.local/ns/*/sa/web", NO),
        ("cluster-local/ns/edge/sa/web", NO),
        ("other/ns/edge/sa/web", NO),
    ],
)
def test_principals_are_the_id_without_its_scheme(value: str, outcome: Outcome) -> None:
    seen = evidence(peer=PEER)

    assert _outcome(_field("principals", value), seen) is outcome
    assert _outcome(_field("principals", "none/none", value), seen) is outcome
    assert _outcome(_when("source.principal", value), seen) is outcome
    assert _outcome(_field("notPrincipals", value), seen) is (NO if outcome is YES else YES)


def test_a_principal_is_meant_in_every_trust_domain_of_the_mesh() -> None:
    aliases = ("cluster.local", "old.example")

    for peer in ("spiffe://cluster.local/ns/edge/sa/web", "spiffe://old.example/ns/edge/sa/web"):
        seen = evidence(peer=peer, trust_domains=aliases)
        assert _outcome(_field("principals", "cluster.local/ns/edge/sa/web"), seen) is YES
        assert _outcome(_field("principals", "old.example/ns/edge/sa/web"), seen) is YES
    foreign = evidence(peer="spiffe://foreign/ns/edge/sa/web", trust_domains=aliases)
    assert _outcome(_field("principals", "cluster.local/ns/edge/sa/web"), foreign) is NO


@pytest.mark.parametrize(
    ("value", "outcome"),
    [("edge", YES), ("e*", YES), ("*ge", YES), ("e*e", YES), ("*", YES), ("edg", NO), ("apps", NO)],
)
def test_namespaces_are_the_peers_in_any_trust_domain(value: str, outcome: Outcome) -> None:
    for domain in ("cluster.local", "foreign"):
        seen = evidence(peer=f"spiffe://{domain}/ns/edge/sa/web")
        assert _outcome(_field("namespaces", value), seen) is outcome
        assert _outcome(_when("source.namespace", "none", value), seen) is outcome


# --- the token --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "outcome"),
    [
        ("https://idp.example/alice", YES),
        ("https://idp.example/*", YES),
        ("*/alice", YES),
        ("*", YES),
        ("https://idp.example", NO),
        ("https://idp.example/bob", NO),
    ],
)
def test_request_principals_are_issuer_and_subject(value: str, outcome: Outcome) -> None:
    seen = evidence(token=token())

    assert _outcome(_field("requestPrincipals", value), seen) is outcome
    assert _outcome(_when("request.auth.principal", "none", value), seen) is outcome


@pytest.mark.parametrize(
    "value",
    [
        "*",
        "https://idp.example",
        "https://idp.example/",
        "https://idp.example/*",
        "https://idp.example/a*",
        "*/",
        "https*",
        "*a",
        "*/*a",
    ],
)
def test_a_token_without_subject_is_no_request_principal(value: str) -> None:
    assert _outcome(_field("requestPrincipals", value), evidence(token=token(subject=None))) is NO


def test_an_empty_subject_is_one() -> None:
    assert _outcome(_field("requestPrincipals", "https://idp.example/"), evidence(token=token(subject=""))) is YES
    assert _outcome(_field("requestPrincipals", "*"), evidence(token=token(subject=""))) is NO


@pytest.mark.parametrize(
    ("claims", "key", "value", "outcome"),
    [
        ({"groups": "admin"}, "groups", "admin", YES),
        ({"groups": ["x", "admin"]}, "groups", "admin", YES),
        ({"groups": ("x", "admin")}, "groups", "admin", YES),
        ({"groups": ["admin", 1, None, {}]}, "groups", "admin", YES),
        ({"groups": []}, "groups", "*", NO),
        ({"groups": [""]}, "groups", "*", NO),
        ({"groups": "user admin"}, "groups", "admin", NO),
        ({"groups": "administrator"}, "groups", "admin", NO),
        ({"groups": "administrator"}, "groups", "admin*", YES),
        ({"groups": {"admin": True}}, "groups", "admin", NO),
        ({"groups": [["admin"]]}, "groups", "admin", NO),
        ({"groups": True}, "groups", "*", NO),
        ({"groups": 5}, "groups", "*", NO),
        ({"groups": None}, "groups", "*", NO),
        ({"Groups": "admin"}, "groups", "admin", NO),
        ({"a": {"b": "x"}}, "a][b", "x", YES),
        ({"a": {"b": {"c": ["x"]}}}, "a][b][c", "x", YES),
        ({"a.b": "x"}, "a][b", "x", NO),
        ({"a": {"b": "x"}}, "a.b", "x", NO),
        ({"a": [{"b": "x"}]}, "a][b", "x", NO),
        ({"a": "x"}, "a][b", "x", NO),
        ({"email": "a@b.example"}, "email", "*@b.example", YES),
        ({"email": "a@b.example.evil"}, "email", "*@b.example", NO),
        ({"name": "e\u0301"}, "name", "\u00e9", NO),
    ],
)
def test_a_claim_is_a_text_or_a_list_of_texts(claims: dict[str, Any], key: str, value: str, outcome: Outcome) -> None:
    seen = evidence(token=token(**claims))

    assert _outcome(_when(f"request.auth.claims[{key}]", value), seen) is outcome
    assert _outcome(_when(f"request.auth.claims[{key}]", "none", value), seen) is outcome
    assert _outcome(_when(f"request.auth.claims[{key}]", value, negated=True), seen) is (NO if outcome is YES else YES)


def test_audiences_and_presenter_are_claims_too() -> None:
    seen = evidence(token=token(aud=["a", "b"], azp="c"))

    assert _outcome(_when("request.auth.audiences", "b"), seen) is YES
    assert _outcome(_when("request.auth.audiences", "https://b"), seen) is NO
    assert _outcome(_when("request.auth.presenter", "c"), seen) is YES
    assert _outcome(_when("request.auth.presenter", "a"), seen) is NO


# --- addresses and ports ----------------------------------------------------------------------------------------------


def _at(end: str, address: str) -> RequestFacts:
    return facts(source=address) if end == "source" else facts(destination=address)


IP_TERMS: Final = [
    (_field("ipBlocks", "10.0.0.0/8"), _field("notIpBlocks", "10.0.0.0/8"), "source"),
    (_when("source.ip", "10.0.0.0/8"), _when("source.ip", "10.0.0.0/8", negated=True), "source"),
    (_when("destination.ip", "10.0.0.0/8"), _when("destination.ip", "10.0.0.0/8", negated=True), "destination"),
]


@pytest.mark.parametrize(("positive", "negative", "end"), IP_TERMS)
@pytest.mark.parametrize(("address", "inside"), [("10.1.2.3", True), ("11.1.2.3", False), ("::1", False)])
def test_an_address_is_in_a_block_or_not(positive: str, negative: str, end: str, address: str, *, inside: bool) -> None:
    for posture in Posture:
        seen = evidence(_at(end, address), posture=posture)
        assert _outcome(positive, seen) is (YES if inside else NO)
        assert _outcome(negative, seen) is (NO if inside else YES)


@pytest.mark.parametrize(("positive", "negative", "end"), IP_TERMS)
@pytest.mark.parametrize("address", ["", "/run/app.sock", "10.1.2", "garbage"])
def test_what_is_no_address_cannot_be_read_in_strict_and_is_nowhere_in_istio(
    positive: str, negative: str, end: str, address: str
) -> None:
    strict, istio = (evidence(_at(end, address), posture=posture) for posture in (STRICT, ISTIO))

    assert _outcome(positive, strict) is MAYBE
    assert _outcome(negative, strict) is MAYBE
    assert _outcome(positive, istio) is NO
    assert _outcome(negative, istio) is YES


@pytest.mark.parametrize(("port", "outcome"), [(8080, YES), (80, NO), (80800, NO)])
def test_a_port_is_the_workloads_own(port: int, outcome: Outcome) -> None:
    seen = evidence(facts(port=port))

    assert _outcome(_field("ports", "1", "8080"), seen) is outcome
    assert _outcome(_when("destination.port", "08080"), seen) is outcome
    assert _outcome(_field("notPorts", "8080"), seen) is (NO if outcome is YES else YES)


def test_an_unknown_port_cannot_be_read_in_strict_and_is_zero_in_istio() -> None:
    strict, istio = (evidence(facts(port=0), posture=posture) for posture in (STRICT, ISTIO))

    assert _outcome(_field("ports", "8080"), strict) is MAYBE
    assert _outcome(_field("notPorts", "8080"), strict) is MAYBE
    assert _outcome(_field("ports", "8080"), istio) is NO
    assert _outcome(_field("notPorts", "8080"), istio) is YES
    assert _outcome(_field("ports", "0"), istio) is YES


# --- the request line -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "value", "outcome"),
    [
        ("GET", "GET", YES),
        ("get", "GET", NO),
        ("GET", "G*", YES),
        ("GET", "*T", YES),
        ("GET", "*", YES),
        ("GET ", "GET", NO),
    ],
)
def test_a_method_is_compared_as_it_is_written(method: str, value: str, outcome: Outcome) -> None:
    for posture in Posture:
        seen = evidence(facts(method=method), posture=posture)
        assert _outcome(_field("methods", "NONE", value), seen) is outcome
        assert _outcome(_field("notMethods", value), seen) is (NO if outcome is YES else YES)


@pytest.mark.parametrize(
    ("path", "value", "outcome"),
    [
        ("/a", "/a", YES),
        ("/a?b", "/a", YES),
        ("/a#b", "/a", YES),
        ("/a/b", "/a/*", YES),
        ("/a", "/a/*", NO),
        ("/ab", "/a*", YES),
        ("/x/info", "*/info", YES),
        ("/x/info/y", "*/info", NO),
        ("/A", "/a", NO),
        ("/axb", "/a.b", NO),
        ("/", "*", YES),
        ("*", "/*", NO),
        ("*", "*", YES),
    ],
)
def test_a_path_is_compared_without_its_query(path: str, value: str, outcome: Outcome) -> None:
    for posture in Posture:
        seen = evidence(facts(path=path), posture=posture)
        assert _outcome(_field("paths", "/none", value), seen) is outcome
        assert _outcome(_field("notPaths", value), seen) is (NO if outcome is YES else YES)


@pytest.mark.parametrize("path", ["//admin", "/x/../admin", "/%61dmin", "/admin;x", "/\\admin", "/x%2f..%2fadmin"])
def test_a_path_with_two_readings_is_none_of_them_in_strict_and_as_sent_in_istio(path: str) -> None:
    strict, istio = (evidence(facts(path=path), posture=posture) for posture in (STRICT, ISTIO))

    for field in ("paths", "notPaths"):
        assert _outcome(_field(field, "/admin"), strict) is MAYBE
    assert _outcome(_field("paths", "/admin"), istio) is NO
    assert _outcome(_field("notPaths", "/admin"), istio) is YES
    assert _outcome(_field("paths", "/*"), strict) is YES  # whatever it means, it is below /
    assert _outcome(_field("paths", path, "//admin", "/admin"), strict) is YES  # every reading is named
    assert _outcome(_field("paths", "/other"), strict) is NO


@pytest.mark.parametrize("path", ["", "?a=/admin"])
def test_no_path_satisfies_neither_paths_nor_not_paths_in_strict(path: str) -> None:
    strict, istio = (evidence(facts(path=path), posture=posture) for posture in (STRICT, ISTIO))

    assert _outcome(_field("paths", "*"), strict) is MAYBE
    assert _outcome(_field("notPaths", "/admin"), strict) is MAYBE
    assert _outcome(_field("paths", "*"), istio) is NO
    assert _outcome(_field("notPaths", "/admin"), istio) is YES


@pytest.mark.parametrize(
    ("host", "value", "outcome"),
    [
        ("shop.example", "shop.example", YES),
        ("Shop.Example", "shop.EXAMPLE", YES),
        ("a.shop.example", "*.shop.example", YES),
        ("A.SHOP.example", "*.Shop.Example", YES),
        ("shop.example", "*.shop.example", NO),
        ("shop.example", "shop.*", YES),
        ("shop.example.evil", "shop.example", NO),
        ("shop.example:80", "shop.example:80", YES),
        ("shop.example:80", "shop.example:*", YES),
        ("shop.example", "*", YES),
        ("\u212aey.example", "key.example", NO),
    ],
)
def test_a_host_is_compared_in_any_ascii_case(host: str, value: str, outcome: Outcome) -> None:
    for posture in Posture:
        assert _outcome(_field("hosts", "none", value), evidence(facts(host=host), posture=posture)) is outcome


@pytest.mark.parametrize("host", ["shop.example:80", "shop.example.", "SHOP.example.:80"])
def test_a_deny_means_a_host_in_every_form_and_an_allow_as_written(host: str) -> None:
    strict, istio = (evidence(facts(host=host), posture=posture) for posture in (STRICT, ISTIO))
    named, excluded = _field("hosts", "shop.example"), _field("notHosts", "shop.example")

    assert _outcome(named, strict, Action.DENY) is MAYBE
    assert _outcome(named, strict, Action.ALLOW) is NO
    assert _outcome(excluded, strict, Action.ALLOW) is MAYBE
    assert _outcome(excluded, strict, Action.DENY) is MAYBE
    for action in (Action.ALLOW, Action.DENY):
        assert _outcome(named, istio, action) is NO
        assert _outcome(excluded, istio, action) is YES


@pytest.mark.parametrize("value", ["shop.example:8443", "shop.example:*", "shop.example."])
def test_a_dot_before_the_port_hides_no_host_from_a_deny(value: str) -> None:
    assert _outcome(_field("hosts", value), evidence(facts(host="shop.example.:8443")), Action.DENY) is MAYBE


def test_an_empty_host_satisfies_neither_hosts_nor_not_hosts_in_strict() -> None:
    """Envoy 1.40 forwards a request whose Host has no value, and the workload serves it by its default."""
    strict, istio = (evidence(facts(host=""), posture=posture) for posture in (STRICT, ISTIO))

    for field in ("hosts", "notHosts"):
        for action in (Action.ALLOW, Action.DENY):
            assert _outcome(_field(field, "shop.example"), strict, action) is MAYBE
    assert _outcome(_field("hosts", "*.example", "*"), istio) is YES  # it asks that the header is there
    assert _outcome(_field("hosts", "*.example"), istio) is NO
    assert _outcome(_field("notHosts", "shop.example"), istio) is YES


# --- headers ----------------------------------------------------------------------------------------------------------

ROLE: Final = "request.headers[X-Role]"


def _role(*lines: str, posture: Posture = STRICT, joined: bool = False) -> Evidence:
    return evidence(facts(*(("x-role", line) for line in lines), joined=joined), posture=posture)


@pytest.mark.parametrize(
    ("line", "value", "outcome"),
    [
        ("admin", "admin", YES),
        ("ADMIN", "admin", NO),
        ("administrator", "admin*", YES),
        ("sysadmin", "*admin", YES),
        ("admin", "*", YES),
        ("", "*", YES),
        ("", "admin", NO),
        ("admin!", "admin", NO),
        ("ädmin", "*dmin", YES),
    ],
)
def test_a_header_with_one_line_has_one_reading(line: str, value: str, outcome: Outcome) -> None:
    for posture in Posture:
        for joined in (False, True):
            seen = _role(line, posture=posture, joined=joined)
            assert _outcome(_when(ROLE, "none", value), seen) is outcome
            assert _outcome(_when(ROLE, value, negated=True), seen) is (NO if outcome is YES else YES)


@pytest.mark.parametrize(
    ("lines", "joined"),
    [
        (("user", "admin"), False),
        (("admin", "user"), False),
        (("admin", "admin"), False),
        (("user,admin",), True),
        (("admin, user",), True),
        ((" admin",), False),
        (("admin\t",), True),
    ],
)
def test_a_value_among_others_is_unreadable_in_strict(lines: tuple[str, ...], *, joined: bool) -> None:
    seen = _role(*lines, joined=joined)

    assert _outcome(_when(ROLE, "admin"), seen) is MAYBE
    assert _outcome(_when(ROLE, "admin", negated=True), seen) is MAYBE
    assert _outcome(_when(ROLE, "*"), seen) is YES
    assert _outcome(_when(ROLE, "other"), seen) is NO


def test_a_line_as_it_came_is_a_reading_too() -> None:
    """Whatever Envoy's own filter matches, strict does not overlook."""
    assert _outcome(_when(ROLE, "a "), _role("a ", "b", posture=ISTIO)) is YES
    assert _outcome(_when(ROLE, "a "), _role("a ", "b")) is MAYBE


def test_lines_that_envoy_keeps_apart_are_not_split_at_their_commas() -> None:
    assert _outcome(_when(ROLE, "a,b"), _role("a,b")) is YES
    assert _outcome(_when(ROLE, "a,b"), _role("a,b", joined=True)) is MAYBE


@pytest.mark.parametrize(("lines", "outcome"), [(("user", "admin"), YES), (("user",), NO), (("user,admin",), NO)])
def test_any_line_counts_in_istio(lines: tuple[str, ...], outcome: Outcome) -> None:
    seen = _role(*lines, posture=ISTIO)

    assert _outcome(_when(ROLE, "admin"), seen) is outcome
    assert _outcome(_when(ROLE, "admin", negated=True), seen) is (NO if outcome is YES else YES)


@pytest.mark.parametrize("lines", [("admin\udcff",), ("user", "\udcff")])
def test_a_header_that_is_not_utf_8_cannot_be_read_where_a_rule_looks_at_it(lines: tuple[str, ...]) -> None:
    for value in ("admin", "*", "user"):
        assert _outcome(_when(ROLE, value), _role(*lines)) is MAYBE
        assert _outcome(_when(ROLE, value, negated=True), _role(*lines)) is MAYBE
    assert _outcome(_when(ROLE, "admin"), _role(*lines, posture=ISTIO)) is NO
    assert _outcome(_when("request.headers[x-other]", "*"), _role(*lines)) is NO


def test_pseudo_headers_are_headers_and_host_is_the_authority() -> None:
    seen = evidence(facts(path="/a?b", host="shop.example"))

    assert _outcome(_when("request.headers[:path]", "/a?b"), seen) is YES
    assert _outcome(_when("request.headers[:authority]", "shop.example"), seen) is YES
    assert _outcome(_when("request.headers[Host]", "shop.example"), seen) is YES
    assert _outcome(_when("request.headers[host]", "other"), seen) is NO


# --- without HTTP -----------------------------------------------------------------------------------------------------


def test_a_connection_without_http_satisfies_no_http_field() -> None:
    tcp = RequestFacts(http=None, source=Endpoint(address="10.0.0.1"), destination=Endpoint(port=80))
    strict, istio = (evidence(tcp, posture=posture) for posture in (STRICT, ISTIO))

    for rule in (_field("methods", "*"), _field("hosts", "*"), _field("paths", "*"), _when(ROLE, "*")):
        assert _outcome(rule, strict) is not YES
        assert _outcome(rule, istio) is NO
        assert _trace(rule, strict).terms[0].got == "absent"
    assert _outcome(_field("ports", "80"), strict) is YES


# --- what a trace says ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "seen", "got"),
    [
        (_field("principals", "a"), evidence(peer=PEER), PEER),
        (_field("principals", "a"), NOBODY, "absent"),
        (_field("namespaces", "a"), evidence(peer=PEER), PEER),
        (_field("requestPrincipals", "a"), NOBODY, "absent"),
        (_field("requestPrincipals", "a"), evidence(token=token()), "https://idp.example/alice"),
        (_field("requestPrincipals", "a"), evidence(token=token(subject=None)), "https://idp.example/"),
        (_when("request.auth.claims[a]", "a"), NOBODY, "no token"),
        (_when("request.auth.claims[a]", "a"), evidence(token=token()), "absent"),
        (_when("request.auth.claims[a]", "a"), evidence(token=token(a=["x"])), "['x']"),
        (_when("request.auth.audiences", "a"), evidence(token=token(aud="y")), "y"),
        (_field("ipBlocks", "::1"), evidence(), "10.1.2.3"),
        (_field("ipBlocks", "::1"), evidence(facts(source="")), "absent"),
        (_when("destination.ip", "::1"), evidence(), "10.9.8.7"),
        (_field("ports", "1"), evidence(), "8080"),
        (_field("ports", "1"), evidence(facts(port=0)), "absent"),
        (_field("methods", "a"), evidence(), "GET"),
        (_field("hosts", "a"), evidence(facts(host="")), "absent"),
        (_field("paths", "a"), evidence(facts(path="/x?y")), "/x?y"),
        (_when(ROLE, "a"), _role("b", "c"), "'b', 'c'"),
        (_when(ROLE, "a"), _role(""), "''"),
        (_when(ROLE, "a"), evidence(), "absent"),
    ],
)
def test_a_trace_says_what_the_request_has(rule: str, seen: Evidence, got: str) -> None:
    (term,) = _trace(rule, seen).terms

    assert term.got == got
