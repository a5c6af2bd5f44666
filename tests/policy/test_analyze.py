"""Policies that load and do not do what they seem to. Each finding has its clean twin."""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

import pytest
from countersign.core.posture import Posture
from countersign.policy.analysis.analyze import Written, analyze
from countersign.policy.analysis.notes import Notes
from countersign.policy.analysis.surroundings import Surroundings
from countersign.policy.parse import parse
from countersign.policy.problems import Code, Problem, Severity
from countersign.policy.workload import Workload, workload_of

RULE_LINE: Final = 7
JWKS: Final = "jwks: '{\"keys\": []}'"


def _resource(kind: str, name: str, namespace: str, spec: str) -> str:
    return (
        f"apiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\n"
        f"spec: {spec}\n---\n"
    )


def _policy(action: str, rule: str, namespace: str = "apps", name: str = "policy") -> str:
    """An AuthorizationPolicy whose only rule stands on `RULE_LINE`."""
    return _resource("AuthorizationPolicy", name, namespace, f"\n  action: {action}\n  rules:\n  - {rule}")


def _peers(name: str, spec: str, namespace: str = "apps") -> str:
    return _resource("PeerAuthentication", name, namespace, spec)


def _users(name: str, *rules: str, namespace: str = "apps", where: str = "") -> str:
    """A RequestAuthentication whose rules stand on the lines from 6 on."""
    written = "".join(f"\n  - {{{rule}}}" for rule in rules) or " []"
    return _resource("RequestAuthentication", name, namespace, f"\n  {where}jwtRules:{written}")


def _created(text: str, year: int) -> str:
    return text.replace("}\n", f", creationTimestamp: '{year}-01-01T00:00:00Z'}}\n", 1)


def _analyze(text: str, *, complete: bool = True, **surroundings: Any) -> tuple[Problem, ...]:
    texts = {"f.yaml": text}
    resources = parse(texts, None, lambda _: "").resources
    found = analyze(Written(resources=resources, texts=texts, complete=complete), Surroundings(**surroundings))
    assert all(problem.severity is Severity.WARNING and problem.help for problem in found)
    return found


def _found(text: str, **surroundings: Any) -> list[tuple[StrEnum, int]]:
    return [(problem.code, problem.position.line) for problem in _analyze(text, **surroundings)]


def _only(text: str, **surroundings: Any) -> Problem:
    (problem,) = _analyze(text, **surroundings)
    return problem


def _operation(action: str, field: str, *values: str) -> str:
    # With a port, so that the rule is not one that closes TCP ports.
    listed = ", ".join(f"'{value}'" for value in values)
    return _policy(action, f"{{to: [{{operation: {{ports: ['80'], {field}: [{listed}]}}}}]}}")


def _source(action: str, field: str, *values: str) -> str:
    listed = ", ".join(f"'{value}'" for value in values)
    return _policy(action, f"{{from: [{{source: {{ipBlocks: [10.0.0.1], {field}: [{listed}]}}}}]}}")


def _when(action: str, key: str, *values: str, field: str = "values") -> str:
    listed = ", ".join(f"'{value}'" for value in values)
    return _policy(
        action, f"{{from: [{{source: {{ipBlocks: [10.0.0.1]}}}}], when: [{{key: '{key}', {field}: [{listed}]}}]}}"
    )


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "good"),
    [
        (_operation("DENY", "paths", "/service/*health"), _operation("DENY", "paths", "/service/{*}/health", "*h")),
        (_operation("DENY", "paths", "/a/**"), _operation("DENY", "paths", "/a/*", "*")),
        (_operation("DENY", "paths", "*/a*"), _operation("DENY", "paths", "*/a", "/x/{**}")),
        (_operation("DENY", "hosts", "*.a.example:*"), _operation("DENY", "hosts", "*.a.example", "a.example:*")),
        (_operation("DENY", "methods", "P*T"), _operation("DENY", "methods", "P*", "*T", "*")),
        (_source("DENY", "principals", "*/ns/a/*"), _source("DENY", "principals", "*/sa/a", "td/*", "*")),
        (_source("DENY", "requestPrincipals", "https://*.a/b"), _source("DENY", "requestPrincipals", "*.a/b", "*")),
        (_source("DENY", "requestPrincipals", "a*b*"), _source("DENY", "requestPrincipals", "a*", "*b", "*")),
        (_when("DENY", "request.headers[x-a]", "a*b"), _when("DENY", "request.headers[x-a]", "a*", "*")),
        (_when("DENY", "request.auth.claims[a][b]", "**"), _when("DENY", "request.auth.claims[a][b]", "*")),
        (_when("DENY", "request.auth.audiences", "a*b"), _when("DENY", "request.auth.audiences", "*b")),
        (_when("DENY", "request.auth.presenter", "a*b"), _when("DENY", "request.auth.presenter", "*b")),
        (_when("DENY", "connection.sni", "a*b"), _when("DENY", "connection.sni", "*b")),
        (
            _when("DENY", "experimental.envoy.filters.http.x[k]", "X*X"),
            _when("DENY", "experimental.envoy.filters.http.x[k]", "*b", "[a*]"),
        ),
        (
            _when("DENY", "experimental.envoy.filters.http.x[k]", "[a*b]"),
            _when("DENY", "experimental.envoy.filters.http.x[k]", "[*]", "[*b]"),
        ),
    ],
)
def test_an_asterisk_counts_only_where_istio_reads_one(bad: str, good: str) -> None:
    assert _found(bad) == [(Code.LITERAL_ASTERISK, RULE_LINE)]
    assert _found(good) == []


def test_every_asterisk_of_a_namespace_counts() -> None:
    assert _found(_source("DENY", "namespaces", "a*b", "*a*")) == []


@pytest.mark.parametrize("text", [_source("DENY", "principals", "{}"), _when("DENY", "source.principal", "{}")])
def test_a_principal_has_no_scheme(text: str) -> None:
    problem = _only(text.replace("{}", "spiffe://cluster.local/ns/a/sa/b"))

    assert (problem.code, problem.position.line) == (Code.SPIFFE_SCHEME, RULE_LINE)
    assert problem.help == "write `cluster.local/ns/a/sa/b`"
    assert _found(text.replace("{}", "cluster.local/ns/a/sa/b")) == []


@pytest.mark.parametrize(
    ("bad", "help_has"),
    [
        ("ns/a/sa/b", "cluster.local/ns/a/sa/b"),
        ("cluster.local/ns/a/sa/", "NAMESPACE"),
        ("Cluster.local/ns/a/sa/b", "NAMESPACE"),
        ("cluster.local/ns/a b/sa/c", "NAMESPACE"),
        ("cluster.local", "`cluster.local/*`"),
        ("cluster.locl/ns/a/sa/b", "did you mean `cluster.local`?"),
        ("partner.exampel/ns/a/sa/b", "did you mean `partner.example`?"),
    ],
)
def test_an_exact_principal_can_be_somebodys(bad: str, help_has: str) -> None:
    domains = ("cluster.local", "partner.example")
    problem = _only(_source("DENY", "principals", bad), trust_domains=domains)

    assert (problem.code, problem.position.line) == (Code.PRINCIPAL_NEVER_MATCHES, RULE_LINE)
    assert help_has in problem.help
    assert _found(_source("DENY", "principals", "partner.example/ns/a/sa/b"), trust_domains=domains) == []


@pytest.mark.parametrize("value", ["elsewhere.org/web", "cluster.local/ns/a/sa/b", "td/ns/a/sa/b", "*/b c", "Clust*"])
def test_a_foreign_principal_is_no_mistake(value: str) -> None:
    assert _found(_source("DENY", "principals", value), trust_domains=("td",)) == []


@pytest.mark.parametrize("value", ["cluster.example/ns/a/sa/b", "other.local/ns/a/sa/b", "locals/ns/a/sa/b"])
def test_a_trust_domain_that_is_only_like_the_meshs_is_foreign(value: str) -> None:
    assert _found(_source("DENY", "principals", value), trust_domains=("td",)) == []


def test_a_trust_domain_is_none_that_is_nearly_the_meshs() -> None:
    assert _found(_source("DENY", "trustDomains", "cluster.loca")) == [(Code.PRINCIPAL_NEVER_MATCHES, RULE_LINE)]
    assert _found(_source("DENY", "trustDomains", "cluster.local", "partner.example", "cluster.loca*")) == []


@pytest.mark.parametrize(
    ("bad", "good"),
    [
        ("plain", "*/plain"),
        ("alice", "*alice"),
        ("https://idp.example", "https://idp.example/*"),
        ("https://idp*", "https://idp.example/idp*"),
        ("https://idp.example/", "https://idp.example/a"),
        ("https://idp.exampel/*", "*.example/alice"),
        ("https://idp.example//*", "*/alice"),
        ("*.exampel/alice", "*idp.example/alice"),
        ("idp*", "http*"),
    ],
)
def test_a_request_principal_is_an_issuer_and_a_subject(bad: str, good: str) -> None:
    users = _users("users", f"issuer: 'https://idp.example', {JWKS}")

    assert _found(_source("DENY", "requestPrincipals", bad) + users)[0] == (
        Code.REQUEST_PRINCIPAL_NEVER_MATCHES,
        RULE_LINE,
    )
    assert Code.REQUEST_PRINCIPAL_NEVER_MATCHES not in dict(
        _found(_source("DENY", "requestPrincipals", good, "*") + users)
    )


@pytest.mark.parametrize(
    ("value", "write"),
    [
        ("*/*", "write `*` for everybody with a token"),
        ("*/admin*", "name the issuer, as in `https://issuer.example/admin*`"),
        ("*.example/admin*", "name the issuer, as in `https://issuer.example/admin*`"),
        ("https://idp*/*", "list the issuers or the subjects"),
        ("https://idp*/alice", "list the issuers or the subjects"),
        ("*idp*/alice", "list the issuers or the subjects"),
        ("https://idp.example/*alice", "list the issuers or the subjects"),
    ],
)
def test_of_two_asterisks_in_a_request_principal_one_is_a_character(value: str, write: str) -> None:
    """Istio's `requestPrincipalGenerator` looks for one, at either end of the whole value."""
    problem = _only(_source("DENY", "requestPrincipals", value))

    assert (problem.code, problem.position.line, problem.help) == (Code.LITERAL_ASTERISK, RULE_LINE, write)
    assert problem.message == (
        f"`{value}` in `requestPrincipals` has a `*` that is a plain character, for one counts in the whole value, "
        "first or last: requests that should be denied pass"
    )


def test_an_issuer_that_ends_with_a_slash_has_two_before_the_subject() -> None:
    users = _users("users", f"issuer: 'https://tenant.example/', {JWKS}") + TOKENS_ASKED_FOR
    problem = _only(_source("DENY", "requestPrincipals", "https://tenant.example/alice") + users)

    assert problem.code is Code.REQUEST_PRINCIPAL_NEVER_MATCHES
    assert problem.help == "write `https://tenant.example//alice`: the issuer ends with a slash of its own"
    assert _found(_source("DENY", "requestPrincipals", "https://tenant.example//alice") + users) == []


def test_an_issuer_is_unknown_only_where_all_issuers_are_known() -> None:
    policy = _policy("ALLOW", "{from: [{source: {requestPrincipals: ['https://a.example/*']}}]}")
    any_issuer = _users("users", "jwksUri: 'https://b.example/keys'")
    other = _users("users", f"issuer: 'https://b.example', {JWKS}")
    elsewhere = _users("users", f"issuer: 'https://b.example', {JWKS}", namespace="elsewhere")

    assert _found(policy) == []
    assert _found(policy + any_issuer) == []
    assert Code.REQUEST_PRINCIPAL_NEVER_MATCHES not in dict(_found(policy + elsewhere))
    assert _found(policy + other) == [(Code.REQUEST_PRINCIPAL_NEVER_MATCHES, RULE_LINE)]
    assert _found(policy + other, complete=False) == []


@pytest.mark.parametrize(
    ("bad", "good"),
    [
        (("request.auth.claims[scope]", "read write"), ("request.auth.claims[scope]", "read")),
        (("request.auth.claims[permission]", "a b*"), ("request.auth.claims[scopes]", "a b")),
        (("request.auth.claims[exp]", "1800000000"), ("request.auth.claims[app][exp]", "1800000000")),
        (("request.auth.claims[iat]", "*"), ("request.auth.claims[iat_text]", "*")),
        (("request.auth.claims[email_verified]", "true"), ("request.auth.claims[email]", "true")),
        (("request.auth.claims[[a]]", "b"), ("request.auth.claims[a]", "b")),
        (("request.auth.claims[a][b[c]", "b"), ("request.auth.claims[a][b][c]", "b")),
        (("request.auth.claims[[a]", "b"), ("request.auth.claims[scope][x]", "a b")),
        (("request.auth.claims[a]b][c]", "b"), ("request.auth.claims[realm][exp]", "5")),
        (("request.auth.claims[b]]", "b"), ("request.auth.claims[realm][scope]", "a b")),
    ],
)
def test_a_claim_can_have_the_value(bad: tuple[str, str], good: tuple[str, str]) -> None:
    assert _found(_when("DENY", *bad)) == [(Code.CLAIM_NEVER_MATCHES, RULE_LINE)]
    assert _found(_when("DENY", *good)) == []


def test_a_claim_is_split_where_every_issuer_splits_it() -> None:
    policy = _policy("ALLOW", "{when: [{key: 'request.auth.claims[roles]', values: [a b]}]}")
    splits = f"issuer: a, spaceDelimitedClaims: [roles], {JWKS}"

    assert _found(policy + _users("users", splits)) == [(Code.CLAIM_NEVER_MATCHES, RULE_LINE)]
    assert _found(policy + _users("users", splits, f"issuer: b, {JWKS}")) == []


@pytest.mark.parametrize(
    ("text", "posture", "exposed"),
    [
        (_operation("DENY", "hosts", "{}"), Posture.ISTIO, True),
        (_operation("ALLOW", "notHosts", "{}"), Posture.ISTIO, True),
        (_operation("ALLOW", "hosts", "{}"), Posture.ISTIO, False),
        (_operation("ALLOW", "hosts", "{}"), Posture.STRICT, False),
        (_operation("DENY", "notHosts", "{}"), Posture.STRICT, False),
    ],
)
@pytest.mark.parametrize("host", ["a.example", "*.example", "[2001:db8::1]"])
def test_a_host_has_a_twin_with_a_port(text: str, posture: Posture, host: str, exposed: bool) -> None:
    problem = _only(text.replace("{}", host), posture=posture)

    assert (problem.code, problem.position.line) == (Code.HOST_WITHOUT_PORT, RULE_LINE)
    assert ("kept out pass" in problem.message or "denied pass" in problem.message) is exposed
    for twin in ("*", "A.example:80", "A.example*"):
        assert _found(text.replace("{}", twin), posture=posture) == []


def test_a_twin_covers_every_port_where_a_missed_one_gets_through() -> None:
    twin, one_port = ("a.example", "A.example:*"), ("a.example", "A.example:8443")

    assert _found(_operation("ALLOW", "hosts", *twin)) == []
    assert _found(_operation("ALLOW", "hosts", *one_port)) == []
    assert _found(_operation("DENY", "hosts", *twin), posture=Posture.ISTIO) == []
    assert _found(_operation("DENY", "hosts", *one_port), posture=Posture.ISTIO) == [
        (Code.HOST_WITHOUT_PORT, RULE_LINE)
    ]


@pytest.mark.parametrize("text", [_operation("DENY", "hosts", "a.example"), _operation("ALLOW", "notHosts", "a.b")])
def test_the_strict_posture_needs_no_twin_where_it_reads_both(text: str) -> None:
    assert _found(text, posture=Posture.STRICT) == []


@pytest.mark.parametrize(
    ("bad", "help_has"),
    [("get", "write `GET`"), ("g*", "write `G*`"), ("GETS", "did you mean `GET`?"), ("/a.B/C", "gRPC is POST")],
)
def test_a_method_is_one_of_https(bad: str, help_has: str) -> None:
    problem = _only(_operation("DENY", "methods", bad))

    assert (problem.code, problem.position.line) == (Code.METHOD_NEVER_MATCHES, RULE_LINE)
    assert help_has in problem.help
    assert _found(_operation("DENY", "methods", "GET", "*", "DEL*", "PROPFIND")) == []


@pytest.mark.parametrize(
    ("bad", "good"),
    [
        ("admin", "/admin"),
        ("admin/*", "/admin/*"),
        ("/admin?debug=1", "/admin"),
        ("/admin/#top", "/admin/"),
        ("/adm in", "/adm%20in"),
        ("/ädmin*", "/%C3%A4dmin*"),
        ("//admin", "/admin"),
        ("/a/../admin/*", "/admin/*"),
        ("/a/./{*}", "/a/{*}"),
        ("/%61dmin", "/admin"),
        ("/a%2Fb*", "/a/b*"),
        ("*\\admin", "*/admin"),
        ("/admin;v=1", "/admin"),
        ("/a/..", "/a/.*"),
    ],
)
def test_a_path_is_as_requests_have_it(bad: str, good: str) -> None:
    assert _found(_operation("DENY", "paths", bad)) == [(Code.PATH_NEVER_MATCHES, RULE_LINE)]
    assert _found(_operation("DENY", "paths", good, "*")) == []


@pytest.mark.parametrize(
    ("action", "field", "harm"),
    [
        ("ALLOW", "paths", "requests that should pass are denied"),
        ("ALLOW", "notPaths", "requests that should be kept out pass"),
        ("DENY", "paths", "requests that should be denied pass"),
        ("DENY", "notPaths", "requests that should pass are denied"),
        ("AUDIT", "paths", "the rule does not match what it means"),
    ],
)
def test_a_finding_says_what_comes_of_it(action: str, field: str, harm: str) -> None:
    assert _only(_operation(action, field, "admin")).message == (
        f"`admin` in `{field}` never matches, because paths start with a slash: {harm}"
    )


def test_a_finding_points_at_the_value() -> None:
    text = _policy(
        "DENY", "to:\n    - operation:\n        ports: ['80']\n        paths:\n        - /ok\n        - admin"
    )
    problem = _only(text)

    assert str(problem.position) == "f.yaml:12:11"
    assert problem.snippet == "        - admin"


def test_a_value_seen_twice_is_told_once() -> None:
    assert len(_analyze(_operation("DENY", "paths", "admin", "admin"))) == 1


def test_without_the_texts_a_finding_has_its_line() -> None:
    resources = parse({"f.yaml": _operation("DENY", "paths", "admin")}, None, lambda _: "").resources
    (problem,) = analyze(Written(resources=resources, texts={}), Surroundings())

    assert (str(problem.position), problem.snippet) == (f"f.yaml:{RULE_LINE}:1", "")


def test_a_finding_in_an_unknown_text_has_its_line_alone() -> None:
    notes = Notes({})
    notes.warn("c:/f.yaml:1", Code.SYNTAX, "wrong", "help", "b")
    (problem,) = notes.problems()

    assert (str(problem.position), problem.snippet) == ("c:/f.yaml:1:1", "")


def test_a_value_that_is_not_found_again_has_its_line() -> None:
    notes = Notes({"f.yaml": "a: [b]\nc: d\n"})
    notes.warn("f.yaml:2", Code.SYNTAX, "wrong", "help", "b")
    (problem,) = notes.problems()

    assert (str(problem.position), problem.snippet) == ("f.yaml:2:1", "c: d")


# --- rules ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "required"),
    [
        ("notPrincipals: [td/x]", "principals: ['*']"),
        ("notNamespaces: [x]", "principals: [td/ns/a/sa/b]"),
        ("notNamespaces: [x]", "namespaces: ['*']"),
        ("notTrustDomains: [x]", "trustDomains: [td]"),
        ("notServiceAccounts: [x]", "serviceAccounts: [y]"),
        ("notRequestPrincipals: [a/x]", "requestPrincipals: [a/*]"),
    ],
)
def test_a_not_field_of_an_allow_rule_requires_what_it_excludes(bad: str, required: str) -> None:
    alone = f"{{from: [{{source: {{{bad}}}}}]}}"

    assert _found(_policy("ALLOW", alone)) == [(Code.ADMITS_ANONYMOUS, RULE_LINE)]
    assert _found(_policy("ALLOW", f"{{from: [{{source: {{{bad}, {required}}}}}]}}")) == []
    assert Code.ADMITS_ANONYMOUS not in dict(_found(_policy("DENY", alone)))


@pytest.mark.parametrize(
    ("key", "required"),
    [
        ("source.principal", "{key: source.principal, values: ['*']}"),
        ("source.namespace", "{key: source.principal, values: ['*']}"),
        ("request.auth.principal", "{key: request.auth.principal, values: ['*']}"),
        ("request.auth.claims[role]", "{key: request.auth.principal, values: ['*']}"),
        ("request.auth.audiences", "{key: 'request.auth.claims[a]', values: [b]}"),
        ("request.headers[x-a]", "{key: 'request.headers[X-A]', values: ['*']}"),
        ("connection.sni", "{key: connection.sni, values: ['*']}"),
        (
            "experimental.envoy.filters.http.x[k]",
            "{key: 'experimental.envoy.filters.http.x[k]', values: ['*']}",
        ),
    ],
)
def test_not_values_of_an_allow_rule_require_what_they_exclude(key: str, required: str) -> None:
    bad = f"{{key: '{key}', notValues: [x/y]}}"
    problem = _only(_policy("ALLOW", f"{{when: [{bad}]}}"))

    assert (problem.code, problem.position.line) == (Code.ADMITS_ANONYMOUS, RULE_LINE)
    assert _found(_policy("ALLOW", f"{{when: [{bad}, {required}]}}")) == []
    assert Code.ADMITS_ANONYMOUS not in dict(_found(_policy("DENY", f"{{when: [{bad}]}}")))


def test_the_way_out_of_an_anonymous_allow_loads_and_is_one() -> None:
    problem = _only(_policy("ALLOW", "{from: [{source: {notServiceAccounts: [x]}}]}"))
    found = re.fullmatch(r"require it as well: `(when: .*)`", problem.help)

    assert found is not None
    assert _found(_policy("ALLOW", f"{{from: [{{source: {{notServiceAccounts: [x]}}}}], {found[1]}}}")) == []


def test_every_source_must_require_it_because_one_is_enough_to_pass() -> None:
    condition = "when: [{key: source.namespace, notValues: [x]}]"
    one_requires = f"{{from: [{{source: {{principals: ['*']}}}}, {{source: {{ipBlocks: [10.0.0.1]}}}}], {condition}}}"
    both_require = f"{{from: [{{source: {{principals: ['*']}}}}, {{source: {{namespaces: [a]}}}}], {condition}}}"

    assert _found(_policy("ALLOW", one_requires)) == [(Code.ADMITS_ANONYMOUS, RULE_LINE)]
    assert _found(_policy("ALLOW", both_require)) == []


def test_a_peer_is_no_user() -> None:
    rule = "{from: [{source: {principals: ['*'], notRequestPrincipals: [a/x]}}]}"

    assert _found(_policy("ALLOW", rule)) == [(Code.ADMITS_ANONYMOUS, RULE_LINE)]


def test_an_allow_for_those_without_a_token_is_told_apart() -> None:
    problem = _only(_policy("ALLOW", "{from: [{source: {notRequestPrincipals: ['*']}}]}"))

    assert "lets in only callers without a token" in problem.message
    assert "DENY" in problem.help


@pytest.mark.parametrize(
    "rule",
    [
        "{key: 'request.headers[x-debug]', notValues: ['*']}",
        "{key: 'request.headers[:path]', notValues: [/a]}",
        "{key: connection.sni, notValues: ['*']}",
        "{key: source.ip, notValues: [10.0.0.1]}",
        "{key: 'experimental.envoy.filters.http.x[k]', notValues: ['*']}",
    ],
)
def test_what_must_be_absent_or_never_is_is_no_mistake(rule: str) -> None:
    assert _found(_policy("ALLOW", f"{{when: [{rule}]}}")) == []


@pytest.mark.parametrize(
    ("bad", "good"),
    [
        ("{to: [{operation: {paths: [/a]}}]}", "{to: [{operation: {paths: [/a], ports: ['80']}}]}"),
        (
            "{to: [{operation: {paths: [/a]}}, {operation: {ports: ['80']}}]}",
            "{to: [{operation: {methods: [GET], notPorts: ['80']}}, {operation: {ports: ['80']}}]}",
        ),
        ("{from: [{source: {requestPrincipals: ['*']}}]}", "{from: [{source: {namespaces: [a]}}]}"),
        (
            "{when: [{key: 'request.headers[a]', values: [b]}]}",
            "{to: [{operation: {paths: [/a]}}], when: [{key: destination.port, values: ['80']}]}",
        ),
        ("{from: [{source: {notRequestPrincipals: ['*']}}], to: [{operation: {hosts: ['*']}}]}", "{}"),
    ],
)
def test_a_deny_rule_of_http_fields_alone_closes_tcp_ports(bad: str, good: str) -> None:
    assert _found(_policy("DENY", bad)) == [(Code.HTTP_ONLY_DENY, RULE_LINE)]
    assert _found(_policy("DENY", good)) == []
    assert Code.HTTP_ONLY_DENY not in dict(_found(_policy("ALLOW", bad)))


def test_an_empty_allow_rule_in_the_root_namespace_opens_the_mesh() -> None:
    selecting = _resource(
        "AuthorizationPolicy", "open", "istio-system", "{selector: {matchLabels: {app: gateway}}, rules: [{}]}"
    )

    assert _found(_policy("ALLOW", "{}", "istio-system")) == [(Code.ALLOWS_EVERYTHING, RULE_LINE)]
    assert _found(_policy("ALLOW", "{}", "root"), root_namespace="root") == [(Code.ALLOWS_EVERYTHING, RULE_LINE)]
    assert _found(_policy("ALLOW", "{}")) == []
    assert _found(_policy("DENY", "{}", "istio-system")) == []
    assert _found(_policy("ALLOW", "{to: [{operation: {ports: ['80']}}]}", "istio-system")) == []
    assert _found(selecting) == []


# --- resources against each other -------------------------------------------------------------------------------------

SHOP: Final[Mapping[str, Workload]] = {"apps/shop": Workload("apps", (("app", "shop"), ("tier", "web")))}


def _selecting(kind: str, namespace: str, selector: str) -> str:
    jwt = f", jwtRules: [{{issuer: a, {JWKS}}}]" if kind == "RequestAuthentication" else ""
    return _resource(kind, "selecting", namespace, f"{{selector: {{matchLabels: {selector}}}{jwt}}}")


@pytest.mark.parametrize("kind", ["AuthorizationPolicy", "RequestAuthentication", "PeerAuthentication"])
def test_a_policy_applies_to_some_known_workload(kind: str) -> None:
    bad = _selecting(kind, "apps", "{app: shpo}")

    assert (Code.NO_MATCHING_WORKLOAD, 1) in _found(bad, workloads=SHOP)
    assert Code.NO_MATCHING_WORKLOAD not in dict(_found(bad))
    assert Code.NO_MATCHING_WORKLOAD not in dict(_found(bad, workloads=SHOP, complete=False))
    assert Code.NO_MATCHING_WORKLOAD not in dict(_found(_selecting(kind, "apps", "{app: shop}"), workloads=SHOP))
    assert (Code.NO_MATCHING_WORKLOAD, 1) in _found(_selecting(kind, "app", "{app: shop}"), workloads=SHOP)


def test_a_policy_without_workloads_says_what_it_wanted_and_what_is_known() -> None:
    root = _only(
        _resource("AuthorizationPolicy", "a", "istio-system", "{selector: {matchLabels: {a: b}}}"), workloads=SHOP
    )
    bare = _only(_resource("AuthorizationPolicy", "a", "aps", "{}"), workloads=SHOP)

    assert root.message.endswith("applies to no known workload: none in any namespace with a=b")
    assert bare.message.endswith("applies to no known workload: none in `aps` with any labels")
    assert bare.help == "known here: apps/shop"


def test_root_policies_apply_to_workloads_of_every_namespace() -> None:
    assert _found(_resource("AuthorizationPolicy", "a", "istio-system", "{}"), workloads=SHOP) == []


GROUPS: Final = {"Service": "core", "ServiceEntry": "networking.istio.io"}


def _targeting(*targets: tuple[str, str], namespace: str = "edge", rules: str = "") -> str:
    refs = ", ".join(
        f"{{group: {GROUPS.get(kind, 'gateway.networking.k8s.io')}, kind: {kind}, name: {name}}}"
        for kind, name in targets
    )
    return _resource("AuthorizationPolicy", "p", namespace, f"{{targetRefs: [{refs}]{rules}}}")


NAMED: Final = ("gateway.networking.k8s.io/gateway-name", "web")
CLASS: Final = ("gateway.networking.k8s.io/gateway-class-name", "istio-waypoint")
EDGE: Final[Mapping[str, Workload]] = {**SHOP, "edge/web": workload_of("edge", (NAMED,))}
AMBIENT: Final[Mapping[str, Workload]] = {**SHOP, "other/web": workload_of("other", (CLASS, NAMED))}


@pytest.mark.parametrize(
    ("target", "namespace", "known", "found"),
    [
        (("Gateway", "web"), "edge", EDGE, True),
        (("Gateway", "wbe"), "edge", EDGE, False),
        (("Gateway", "web"), "apps", EDGE, False),
        (("Gateway", "web"), "edge", SHOP, False),
        (("Gateway", "web"), "other", AMBIENT, True),
        (("Service", "books"), "apps", AMBIENT, True),  # which services a waypoint serves is not known
        (("ServiceEntry", "books"), "apps", AMBIENT, True),
        (("Service", "books"), "edge", EDGE, False),
        (("GatewayClass", "istio-waypoint"), "istio-system", AMBIENT, True),
        (("GatewayClass", "istio-waypoint"), "istio-system", EDGE, False),
    ],
)
def test_a_target_is_or_is_served_by_a_known_workload(
    target: tuple[str, str], namespace: str, known: Mapping[str, Workload], *, found: bool
) -> None:
    codes = [code for code, _ in _found(_targeting(target, namespace=namespace), workloads=known)]

    assert codes == ([] if found else [Code.NO_MATCHING_WORKLOAD])
    assert _found(_targeting(target, namespace=namespace)) == []


def test_targets_that_no_known_workload_has_are_named() -> None:
    problem = _only(_targeting(("Gateway", "wbe"), ("Service", "books")), workloads=EDGE)

    assert problem.message.endswith("no known workload: none is or serves Gateway `wbe`, Service `books`")


def test_a_policy_without_targets_is_for_no_waypoint() -> None:
    waypoint = {"apps/web": workload_of("apps", (CLASS, NAMED))}

    bare = _resource("AuthorizationPolicy", "p", "apps", "{}")
    assert [code for code, _ in _found(bare, workloads=waypoint)] == [Code.NO_MATCHING_WORKLOAD]
    assert _found(bare, workloads={**waypoint, **SHOP}) == []
    assert _found(_peers("a", "{mtls: {mode: STRICT}}"), workloads=waypoint) == []


@pytest.mark.parametrize(
    ("users", "asks", "met"),
    [
        ([("Gateway", "web")], [("Gateway", "web")], True),
        ([("Gateway", "web")], [("Gateway", "other")], False),
        ([("Gateway", "web")], [("Service", "web")], True),
        ([("ServiceEntry", "web")], [("Gateway", "web")], True),
        ([("Service", "web")], [("Service", "web")], True),
        ([("Service", "web")], [("Service", "other"), ("Service", "web")], True),
        ([("Service", "web")], [("ServiceEntry", "web")], False),
        ([("Service", "web")], [], False),
        ([], [("Service", "web")], False),
        ([("Gateway", "web")], [], True),
        ([], [("Gateway", "web")], True),
    ],
)
def test_a_policy_asks_for_tokens_where_both_are_attached(
    users: list[tuple[str, str]], asks: list[tuple[str, str]], *, met: bool
) -> None:
    rules = ", rules: [{from: [{source: {requestPrincipals: ['*']}}]}]"
    policy = (
        _targeting(*asks, rules=rules) if asks else _resource("AuthorizationPolicy", "p", "edge", f"{{{rules[2:]}}}")
    )
    jwt = f", jwtRules: [{{issuer: a, {JWKS}}}]"
    tokens = (
        _targeting(*users, rules=jwt) if users else _resource("RequestAuthentication", "u", "edge", f"{{{jwt[2:]}}}")
    )
    tokens = tokens.replace("AuthorizationPolicy", "RequestAuthentication")

    assert [code for code, _ in _found(tokens + policy)] == ([] if met else [Code.TOKEN_NOT_REQUIRED])
    elsewhere = policy.replace("namespace: edge", "namespace: apps")
    assert [code for code, _ in _found(tokens + elsewhere)] == [Code.TOKEN_NOT_REQUIRED]


def test_a_gateway_class_may_meet_every_waypoint_and_no_plain_workload() -> None:
    rules = ", rules: [{from: [{source: {requestPrincipals: ['*']}}]}]"
    asks = _targeting(("GatewayClass", "istio-waypoint"), namespace="istio-system", rules=rules)
    jwt = f", jwtRules: [{{issuer: a, {JWKS}}}]"
    served = _targeting(("Service", "books"), rules=jwt).replace("AuthorizationPolicy", "RequestAuthentication")
    plain = _resource("RequestAuthentication", "u", "edge", f"{{{jwt[2:]}}}")

    assert _found(served + asks) == []
    assert [code for code, _ in _found(plain + asks)] == [Code.TOKEN_NOT_REQUIRED]


def test_a_selector_in_the_root_namespace_is_ignored_by_peer_authentication() -> None:
    spec = "{selector: {matchLabels: {app: shop}}, mtls: {mode: STRICT}}"

    assert _found(_peers("a", spec, "istio-system"), workloads=SHOP) == [(Code.INEFFECTIVE_POLICY, 1)]
    assert _found(_peers("a", spec), workloads=SHOP) == []
    assert _found(_peers("a", "{mtls: {mode: STRICT}}", "istio-system"), workloads=SHOP) == []


@pytest.mark.parametrize("spec", ["{mtls: {mode: STRICT}}", "{selector: {matchLabels: {app: shop, tier: web}}}"])
def test_of_two_peer_authentications_at_one_level_the_first_by_name_wins(spec: str) -> None:
    problem = _only(_peers("b", spec) + _peers("a", spec))

    assert (problem.code, problem.position.line) == (Code.COMPETING_POLICIES, 1)
    assert problem.message.startswith("PeerAuthentication `apps/b` is ignored where `apps/a` (f.yaml:6) applies too")
    assert "first by name" in problem.message
    assert _found(_peers("b", spec) + _peers("a", spec, "other")) == []


def test_of_two_peer_authentications_at_one_level_the_older_wins() -> None:
    problem = _only(_created(_peers("a", "{}"), 2026) + _created(_peers("b", "{}"), 2025))

    assert problem.message.startswith("PeerAuthentication `apps/a` is ignored where `apps/b`")
    assert "the older" in problem.message


def test_selectors_that_meet_at_a_known_workload_compete() -> None:
    text = _peers("a", "{selector: {matchLabels: {app: shop}}}") + _peers("b", "{selector: {matchLabels: {tier: web}}}")

    assert _found(text, workloads=SHOP) == [(Code.COMPETING_POLICIES, 6)]
    assert _found(text.replace("tier: web", "app: shop"), workloads=SHOP) == [(Code.COMPETING_POLICIES, 6)]
    assert _found(text) == []


def test_what_competes_twice_is_told_of_once() -> None:
    web = "{selector: {matchLabels: {tier: web}}}"
    text = _peers("a", "{selector: {matchLabels: {app: shop}}}") + _peers("b", web) + _peers("c", web)

    assert _found(text, workloads=SHOP) == [(Code.COMPETING_POLICIES, 6), (Code.COMPETING_POLICIES, 11)]


def test_a_selector_may_name_every_label() -> None:
    text = _peers("a", "{selector: {matchLabels: {app: shop, tier: web}}}")

    assert _found(text, workloads=SHOP) == []
    assert _found(text.replace("web", "web, zone: a"), workloads=SHOP) == [(Code.NO_MATCHING_WORKLOAD, 1)]


def test_levels_do_not_compete() -> None:
    text = _peers("a", "{}", "istio-system") + _peers("b", "{}") + _peers("c", "{selector: {matchLabels: {app: shop}}}")

    assert _found(text, workloads=SHOP) == []


ASKS: Final = {
    "an ALLOW that asks for a token": _policy("ALLOW", "{from: [{source: {requestPrincipals: ['*']}}]}"),
    "an ALLOW that asks for a claim": _policy("ALLOW", "{when: [{key: 'request.auth.claims[a]', values: [b]}]}"),
    "a DENY of those without": _policy(
        "DENY", "{from: [{source: {notRequestPrincipals: ['*']}}], to: [{operation: {ports: ['80']}}]}"
    ),
    "a DENY in the root namespace": _policy(
        "DENY",
        "{from: [{source: {notRequestPrincipals: ['*']}}], to: [{operation: {ports: ['80']}}]}",
        "istio-system",
    ),
}


@pytest.mark.parametrize("policy", ASKS.values(), ids=ASKS)
def test_tokens_are_asked_for_somewhere(policy: str) -> None:
    assert _found(policy + _users("users", f"issuer: a, {JWKS}")) == []


@pytest.mark.parametrize(
    "policy",
    [
        "",
        _policy("ALLOW", "{from: [{source: {principals: ['*']}}]}"),
        _policy("DENY", "{from: [{source: {requestPrincipals: ['*'], ipBlocks: [10.0.0.1]}}]}"),
        _policy("AUDIT", "{from: [{source: {requestPrincipals: ['*']}}]}"),
        _policy("ALLOW", "{from: [{source: {requestPrincipals: ['*']}}]}", "other"),
        _policy("ALLOW", "{from: [{source: {requestPrincipals: ['*']}}]}").replace(
            "}\n", ", annotations: {istio.io/dry-run: 'true'}}\n", 1
        ),
    ],
)
def test_tokens_that_nobody_asks_for_are_told(policy: str) -> None:
    assert _found(_users("users", f"issuer: a, {JWKS}") + policy) == [(Code.TOKEN_NOT_REQUIRED, 1)]


def test_a_policy_for_other_labels_asks_nobody_here() -> None:
    policy = _resource(
        "AuthorizationPolicy",
        "a",
        "apps",
        "{selector: {matchLabels: {app: other}}, rules: [{from: [{source: {requestPrincipals: ['*']}}]}]}",
    )
    users = _users("users", f"issuer: a, {JWKS}", where="selector: {matchLabels: {app: shop}}\n  ")

    assert _found(users + policy) == [(Code.TOKEN_NOT_REQUIRED, 1)]
    assert _found(users + policy.replace("other", "shop")) == []
    assert _found(users + policy.replace("app: other", "tier: web")) == []


def test_what_is_missing_is_told_only_of_a_whole_set() -> None:
    assert _found(_users("users", f"issuer: a, {JWKS}"), complete=False) == []


def test_a_request_authentication_without_rules_has_no_effect() -> None:
    assert _found(_users("users")) == [(Code.INEFFECTIVE_POLICY, 1)]


TOKENS_ASKED_FOR: Final = _policy("ALLOW", "{from: [{source: {requestPrincipals: ['*']}}]}", "istio-system", "asks")


@pytest.mark.parametrize(
    ("uri", "write"),
    [
        ("http://idp.example/keys", "write `https://idp.example/keys`"),
        ("http://localhost.example:80", "write `https://localhost.example:80`"),
        ("http://10.0.0.1/keys", "write `https://10.0.0.1/keys`"),
        ("http://[2001:db8::1]:80/keys", "write `https://[2001:db8::1]:80/keys`"),
    ],
)
def test_keys_come_over_tls(uri: str, write: str) -> None:
    problem = _only(_users("users", f"issuer: a, jwksUri: '{uri}'") + TOKENS_ASKED_FOR)

    assert (problem.code, problem.position.line, problem.help) == (Code.PLAINTEXT_KEYS, 6, write)
    assert _found(_users("users", f"issuer: a, jwksUri: '{uri.replace('http', 'https')}'") + TOKENS_ASKED_FOR) == []


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.9.1:8000", "[::1]:80"])
def test_keys_from_this_machine_need_no_tls(host: str) -> None:
    assert _found(_users("users", f"issuer: a, jwksUri: 'http://{host}/keys'") + TOKENS_ASKED_FOR) == []


def test_an_issuer_stands_in_one_rule() -> None:
    rule = f"issuer: a, {JWKS}"

    assert _found(_users("one", rule, rule) + TOKENS_ASKED_FOR) == [(Code.DUPLICATE_ISSUER, 7)]
    assert _found(_users("one", rule) + _users("two", rule, namespace="istio-system") + TOKENS_ASKED_FOR) == [
        (Code.DUPLICATE_ISSUER, 13)
    ]
    assert _found(_users("one", rule) + _users("two", rule, namespace="other") + TOKENS_ASKED_FOR) == []
    assert _found(_users("one", rule, f"issuer: b, {JWKS}") + TOKENS_ASKED_FOR) == []


def test_rules_without_an_issuer_are_no_duplicates() -> None:
    rule = "jwksUri: 'https://idp.example/keys'"

    assert _found(_users("one", rule, rule) + TOKENS_ASKED_FOR) == []


def test_keys_that_cannot_verify_are_told() -> None:
    texts = {"f.yaml": _users("one", f"issuer: a, {JWKS}") + TOKENS_ASKED_FOR}
    resources = parse(texts, None, lambda _: "").resources
    (users,) = resources.request_authentications
    source = users.rules[0].keys

    def found(*why: str) -> list[tuple[StrEnum, int, str]]:
        written = Written(resources=resources, texts=texts, unusable_keys={source: why})
        return [(p.code, p.position.line, p.message) for p in analyze(written, Surroundings())]

    assert found("number 1, `k`, too short") == [
        (Code.UNUSABLE_KEY, 6, "a key of issuer `a` is put aside: number 1, `k`, too short")
    ]
    assert found() == []


@pytest.mark.parametrize(
    ("namespace", "name"), [("apps", "istio-waypoint"), ("istio-system", "istio"), ("apps", "istio")]
)
def test_a_gateway_class_is_a_target_in_the_root_namespace_and_only_that_of_waypoints(
    namespace: str, name: str
) -> None:
    problem = _only(_targeting(("GatewayClass", name), namespace=namespace))

    assert problem.code == Code.INEFFECTIVE_POLICY
    assert "applies to nothing: as a GatewayClass only `istio-waypoint` is a target" in problem.message
    assert "the root namespace, `istio-system`" in problem.message
    assert len(_found(_targeting(("GatewayClass", name), namespace=namespace), workloads=EDGE)) == 1
    assert _found(_targeting(("GatewayClass", "istio-waypoint"), namespace="istio-system")) == []
    assert _found(_targeting(("GatewayClass", name), ("Gateway", "web"), namespace=namespace)) == []
