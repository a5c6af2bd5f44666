"""The pipeline, step by step: each refusal with its reason, its status and its words, beside what passes."""

import json
from dataclasses import replace
from typing import Any, Final

import pytest
from countersign.authorize import authorize, judge
from countersign.core.decision import Allow, AllowReason, Decision, Deny, Mutations, Reason
from countersign.core.facts import Endpoint, HttpRequest, RequestFacts
from countersign.core.identity import PeerRules, PeerSource, XfccMode
from countersign.core.jwt_rule import InlineKeys, RemoteKeys
from countersign.core.posture import Posture
from countersign.judgement import ACCESS_DENIED, Judgement, Step, deny
from countersign.mesh.issuer import Issuer
from countersign.snapshot import Mesh, Snapshot
from countersign.tokens.authenticate import Authenticated
from countersign.tokens.cache import TokenCache
from countersign.tokens.keys import KeySet

from tests.support import vectors
from tests.support.requests import (
    NOW,
    WEB,
    XFCC,
    authorization,
    decide,
    facts,
    headers,
    peer_authentication,
    request_authentication,
    settled,
    snapshot,
)

ALLOW_ALL: Final = authorization("{rules: [{}]}", "everything")
ISTIO: Final = Mesh(posture=Posture.ISTIO)
BAD_REQUEST: Final = (400, "request malformed")
FORBIDDEN: Final = (403, "RBAC: access denied")
UNAVAILABLE: Final = (503, "authorization unavailable")
STRICT_MTLS: Final = peer_authentication("{mtls: {mode: STRICT}}")


def _denied(decision: Decision, reason: Reason, answer: tuple[int, str]) -> Deny:
    assert isinstance(decision, Deny), decision
    assert decision.reason is reason
    assert (decision.status, decision.body) == answer
    return decision


def _allowed(decision: Decision) -> Allow:
    assert isinstance(decision, Allow), decision
    return decision


# --- answers ----------------------------------------------------------------------------------------------------------

UNJUDGED: Final = {
    Reason.REQUEST_MALFORMED: BAD_REQUEST,
    Reason.REQUEST_INCOMPLETE: BAD_REQUEST,
    Reason.WORKLOAD_UNKNOWN: UNAVAILABLE,
    Reason.NO_POLICIES: UNAVAILABLE,
    Reason.DEADLINE_PASSED: UNAVAILABLE,
    Reason.OVERLOADED: UNAVAILABLE,
    Reason.INTERNAL_ERROR: UNAVAILABLE,
    Reason.CALLER_NOT_ALLOWED: UNAVAILABLE,
    Reason.UNRECORDED: UNAVAILABLE,
}


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_an_answer_that_tells_the_client_nothing(reason: Reason) -> None:
    denied = deny(reason, "what the operator sees", None, 4)

    assert (denied.status, denied.body) == UNJUDGED.get(reason, FORBIDDEN)
    assert "operator" not in denied.body
    assert (denied.detail, denied.policy, denied.generation, denied.headers) == ("what the operator sees", None, 4, ())


def test_the_words_of_a_denial_are_envoys() -> None:
    assert ACCESS_DENIED == "RBAC: access denied"


# --- before anything --------------------------------------------------------------------------------------------------


def test_without_policies_nothing_passes_and_with_an_empty_set_everything_does() -> None:
    unloaded = Snapshot(mesh=Mesh(), policies=None, keys={})
    denied = _denied(settled(authorize(facts(), unloaded, NOW, may_wait=True)), Reason.NO_POLICIES, UNAVAILABLE)

    assert denied.generation == 0
    allowed = _allowed(decide(facts(), ""))
    assert (allowed.reason, allowed.policy, allowed.generation) == (AllowReason.NO_ALLOW_POLICY, None, 7)


@pytest.mark.parametrize("posture", Posture)
@pytest.mark.parametrize(("source", "destination"), [("", ""), ("10.0.0.1", ""), ("", "10.0.0.2")])
def test_a_check_of_neither_a_request_nor_a_connection_is_refused(
    source: str, destination: str, posture: Posture
) -> None:
    empty = RequestFacts(http=None, source=Endpoint(address=source), destination=Endpoint(address=destination))
    mesh = Mesh(posture=posture)

    assert _denied(decide(empty, ALLOW_ALL, mesh), Reason.REQUEST_INCOMPLETE, BAD_REQUEST).generation == 7


# --- connections ------------------------------------------------------------------------------------------------------


def _tcp(principal: str = WEB, port: int = 9000, sni: str | None = "") -> RequestFacts:
    return RequestFacts(
        http=None,
        source=Endpoint(address="10.1.2.3", port=40000, principal=principal),
        destination=Endpoint(address="10.9.8.7", port=port, labels={"app": "shop"}),
        sni=sni,
        context_extensions={"workload.namespace": "apps"},
    )


def test_a_connection_is_judged_by_what_is_left_of_the_rules() -> None:
    by_peer = authorization("{rules: [{from: [{source: {principals: [cluster.local/ns/edge/sa/web]}}]}]}")
    by_method = authorization("{rules: [{to: [{operation: {methods: [GET]}}]}]}")
    stop = authorization("{action: DENY, rules: [{to: [{operation: {methods: [GET]}}]}]}", "stop")

    _allowed(decide(_tcp(), by_peer))
    _denied(decide(_tcp("spiffe://cluster.local/ns/a/sa/b"), by_peer), Reason.NO_ALLOW_RULE_MATCHED, FORBIDDEN)
    _denied(decide(_tcp(), by_method), Reason.NO_ALLOW_RULE_MATCHED, FORBIDDEN)
    _denied(decide(_tcp(), stop + by_peer), Reason.DENY_RULE_MATCHED, FORBIDDEN)
    _allowed(decide(_tcp(), ""))


def test_a_connection_must_be_of_the_mesh_where_strict_says_so() -> None:
    denied = _denied(decide(_tcp(""), STRICT_MTLS), Reason.MTLS_REQUIRED, FORBIDDEN)

    assert denied.policy is not None
    _allowed(decide(_tcp(), STRICT_MTLS))
    _denied(decide(_tcp("spiffe://foreign/ns/a/sa/b"), ""), Reason.PEER_UNTRUSTED_DOMAIN, FORBIDDEN)


def test_no_token_is_looked_for_on_a_connection(issuer: Issuer) -> None:
    known = _with_keys(USERS, issuer)

    _allowed(settled(authorize(_tcp(), known, NOW, may_wait=True)))


def test_a_server_name_is_judged_on_a_connection() -> None:
    text = authorization("{rules: [{when: [{key: connection.sni, values: ['*.shop.example']}]}]}")

    _allowed(decide(_tcp(sni="db.shop.example"), text))
    _denied(decide(_tcp(sni="db.other.example"), text), Reason.NO_ALLOW_RULE_MATCHED, FORBIDDEN)


def test_a_server_name_that_envoy_does_not_say_neither_allows_nor_escapes_a_deny() -> None:
    condition = "when: [{key: connection.sni, values: ['*.shop.example']}]"
    allow, deny = (authorization(f"{{action: {action}, rules: [{{{condition}}}]}}") for action in ("ALLOW", "DENY"))

    for posture in Posture:
        mesh = Mesh(posture=posture)
        _denied(decide(_tcp(sni=None), allow, mesh), Reason.NO_ALLOW_RULE_MATCHED, FORBIDDEN)
        _denied(decide(_tcp(sni=None), deny, mesh), Reason.DENY_RULE_MATCHED, FORBIDDEN)
        _allowed(decide(_tcp(sni=""), deny, mesh))


# --- CUSTOM -----------------------------------------------------------------------------------------------------------

CUSTOM: Final = authorization(
    "{action: CUSTOM, provider: {name: opa}, rules: [{to: [{operation: {paths: [/admin]}}]}]}", "ask"
)


@pytest.mark.parametrize("posture", Posture)
def test_what_a_custom_policy_matches_is_denied_and_nothing_else(posture: Posture) -> None:
    mesh = Mesh(posture=posture)

    denied = _denied(decide(facts(path="/admin"), CUSTOM + ALLOW_ALL, mesh), Reason.CUSTOM_PROVIDER, FORBIDDEN)

    assert denied.policy is not None
    assert (denied.policy.id, denied.policy.source) == ("ns[apps]-policy[ask]-rule[0]", "policy.yaml:4")
    assert denied.detail == "a CUSTOM policy matches, and there is no provider to ask"
    assert denied.generation == 7
    _allowed(decide(facts(path="/public"), CUSTOM + ALLOW_ALL, mesh))
    _allowed(decide(facts(path="/public"), CUSTOM, mesh))
    _denied(decide(facts(path="/public"), CUSTOM + authorization("{}"), mesh), Reason.NO_ALLOW_RULE_MATCHED, FORBIDDEN)


def test_what_a_custom_policy_cannot_read_is_denied() -> None:
    _denied(decide(facts(path="//admin"), CUSTOM), Reason.CUSTOM_PROVIDER, FORBIDDEN)
    _allowed(decide(facts(path="//admin"), CUSTOM, ISTIO))


def test_custom_comes_after_the_peer_and_before_the_token(issuer: Issuer) -> None:
    known = _with_keys(USERS + STRICT_MTLS + CUSTOM, issuer)

    def asked(request: RequestFacts) -> Decision:
        return settled(authorize(request, known, NOW, may_wait=True))

    _denied(asked(_bearing("garbage", path="/admin", principal="")), Reason.MTLS_REQUIRED, FORBIDDEN)
    _denied(asked(_bearing("garbage", path="/admin")), Reason.CUSTOM_PROVIDER, FORBIDDEN)
    bad = asked(_bearing("garbage", path="/public"))
    assert isinstance(bad, Deny)
    assert bad.reason is Reason.TOKEN_MALFORMED
    _allowed(asked(facts(path="/public")))


def test_custom_policies_for_another_workload_ask_nothing() -> None:
    other = CUSTOM.replace("{action", "{selector: {matchLabels: {app: other}}, action")

    _allowed(decide(facts(path="/admin"), other))


# --- AUDIT and dry run ------------------------------------------------------------------------------------------------


def test_an_audited_request_is_decided_as_without_and_says_so() -> None:
    audit = authorization("{action: AUDIT, rules: [{}]}", "look")

    allowed = _allowed(decide(facts(), audit))
    denied = _denied(decide(facts(), audit + authorization("{}")), Reason.NO_ALLOW_RULE_MATCHED, FORBIDDEN)

    for decision in (allowed, denied):
        assert decision.audit is not None
        assert decision.audit.id == "ns[apps]-policy[look]-rule[0]"
    assert _allowed(decide(facts(), ALLOW_ALL)).audit is None


def test_a_dry_run_is_reported_beside_the_decision() -> None:
    stop = authorization("{action: DENY, rules: [{}]}", "stop")
    tried = stop.replace("metadata: {", "metadata: {annotations: {istio.io/dry-run: 'true'}, ")

    allowed = _allowed(decide(facts(), tried))
    denied = _denied(decide(facts(), tried + authorization("{}")), Reason.NO_ALLOW_RULE_MATCHED, FORBIDDEN)

    for decision in (allowed, denied):
        assert decision.dry_run is not None
        assert decision.dry_run.reason is Reason.DENY_RULE_MATCHED
        assert decision.dry_run.policy is not None
        assert decision.dry_run.policy.id == "ns[apps]-policy[stop]-rule[0]"
    assert _allowed(decide(facts(), ALLOW_ALL)).dry_run is None


# --- 1: requests that no client has a reason to send ---------------------------------------------------------------


@pytest.mark.parametrize("posture", Posture)
def test_a_request_without_method_is_refused(posture: Posture) -> None:
    mesh = Mesh(posture=posture)

    _denied(decide(facts(method=""), ALLOW_ALL, mesh), Reason.REQUEST_MALFORMED, BAD_REQUEST)
    _allowed(decide(facts(method="GET"), ALLOW_ALL, mesh))


@pytest.mark.parametrize(
    "odd",
    [
        {"path": "/a%00"},
        {"path": "/é"},
        {"path": "a"},
        {"path": "/a b"},
        {"host": "a@b"},
        {"host": "a,b"},
        {"host": "\u212a"},
    ],
)
def test_an_odd_path_or_host_is_refused_in_strict_only(odd: dict[str, Any]) -> None:
    denied = _denied(decide(facts(**odd), ALLOW_ALL), Reason.REQUEST_MALFORMED, BAD_REQUEST)

    assert denied.detail
    _allowed(decide(facts(**odd), ALLOW_ALL, ISTIO))
    _allowed(decide(facts(path="/a%20b", host="shop.example:80"), ALLOW_ALL))


# --- 2: the workload --------------------------------------------------------------------------------------------------


def _workload_request(
    extensions: dict[str, str] | None = None, labels: dict[str, str] | None = None, principal: str = ""
) -> RequestFacts:
    http = HttpRequest(method="GET", path="/", host="a", headers=headers((":path", "/")))
    return RequestFacts(
        http=http,
        source=Endpoint(),
        destination=Endpoint(principal=principal, labels=labels or {}),
        context_extensions=extensions or {},
    )


def _guarded(namespace: str, labels: str = "") -> str:
    """A policy that denies everything to one workload."""
    selector = f"selector: {{matchLabels: {{{labels}}}}}, " if labels else ""
    return authorization(f"{{{selector}action: DENY, rules: [{{}}]}}", "guard", namespace)


OWN: Final = "spiffe://cluster.local/ns/from-certificate/sa/a"
SETTINGS: Final = Mesh(namespace="from-settings", labels=(("app", "from-settings"),))


@pytest.mark.parametrize(
    ("request_", "namespace"),
    [
        (_workload_request({"workload.namespace": "from-route"}, principal=OWN), "from-route"),
        (_workload_request({"workload.namespace": ""}, principal=OWN), "from-certificate"),
        (_workload_request(principal=OWN), "from-certificate"),
        (_workload_request(principal="spiffe://cluster.local/other"), "from-settings"),
        (_workload_request(principal="CN=x"), "from-settings"),
        (_workload_request(), "from-settings"),
    ],
)
def test_the_namespace_is_the_routes_else_envoys_own_else_the_settings(request_: RequestFacts, namespace: str) -> None:
    _denied(decide(request_, _guarded(namespace), SETTINGS), Reason.DENY_RULE_MATCHED, FORBIDDEN)
    for other in {"from-route", "from-certificate", "from-settings"} - {namespace}:
        _allowed(decide(request_, _guarded(other), SETTINGS))


def test_an_unknown_workload_is_refused() -> None:
    denied = _denied(decide(_workload_request(), ""), Reason.WORKLOAD_UNKNOWN, UNAVAILABLE)

    assert "--namespace" in denied.detail


@pytest.mark.parametrize(
    ("extensions", "labels", "app"),
    [
        ({"workload.labels": "tier=x,app=from-route"}, {"app": "from-envoy"}, "from-route"),
        ({}, {"app": "from-envoy", "tier": "x"}, "from-envoy"),
        ({}, {}, "from-settings"),
    ],
)
def test_the_labels_are_the_routes_else_envoys_own_else_the_settings(
    extensions: dict[str, str], labels: dict[str, str], app: str
) -> None:
    request = _workload_request(extensions, labels)

    _denied(decide(request, _guarded("from-settings", f"app: {app}"), SETTINGS), Reason.DENY_RULE_MATCHED, FORBIDDEN)
    for other in {"from-route", "from-envoy", "from-settings"} - {app}:
        _allowed(decide(request, _guarded("from-settings", f"app: {other}"), SETTINGS))


@pytest.mark.parametrize(
    "labels", ["app", "=shop", "app=shop,", "app=shop,,tier=x", ",", "app=shop,app=x", "app=shop,app=shop"]
)
def test_labels_that_are_not_pairs_are_refused(labels: str) -> None:
    request = _workload_request({"workload.labels": labels})

    _denied(decide(request, ALLOW_ALL, SETTINGS), Reason.WORKLOAD_UNKNOWN, UNAVAILABLE)


def test_a_label_may_be_empty_or_hold_an_equals_sign() -> None:
    request = _workload_request({"workload.labels": "app=,tier=a=b"})

    for selector in ("app: ''", "tier: a=b"):
        guarded = _guarded("from-settings", selector)
        _denied(decide(request, guarded, SETTINGS), Reason.DENY_RULE_MATCHED, FORBIDDEN)


def test_no_labels_said_by_the_route_are_no_labels() -> None:
    request = _workload_request({"workload.labels": ""}, {"app": "from-envoy"})

    for app in ("from-envoy", "from-settings"):
        _allowed(decide(request, _guarded("from-settings", f"app: {app}"), SETTINGS))
    _denied(decide(request, _guarded("from-settings"), SETTINGS), Reason.DENY_RULE_MATCHED, FORBIDDEN)


def _target(kind: str, name: str) -> str:
    group = "core" if kind == "Service" else "gateway.networking.k8s.io"
    return f"{{targetRefs: [{{group: {group}, kind: {kind}, name: {name}}}], action: DENY, rules: [{{}}]}}"


LABELLED: Final = {"gateway.networking.k8s.io/gateway-name": "front"}


def test_the_gateway_is_the_routes_else_that_of_envoys_labels() -> None:
    text = authorization(_target("Gateway", "front"), "guard", "from-settings")

    for front in (_workload_request({"workload.gateway": "front"}), _workload_request(labels=LABELLED)):
        _denied(decide(front, text, SETTINGS), Reason.DENY_RULE_MATCHED, FORBIDDEN)
    for other in (_workload_request({"workload.gateway": "back"}, LABELLED), _workload_request()):
        _allowed(decide(other, text, SETTINGS))
    _allowed(decide(_workload_request({"workload.gateway": "front", "workload.namespace": "x"}), text, SETTINGS))


def test_a_waypoint_asks_the_policies_of_the_service_that_is_asked_for() -> None:
    text = authorization(_target("Service", "books"), "guard", "apps") + _guarded("from-settings")
    waypoint = {"workload.gateway_class": "istio-waypoint"}

    books = _workload_request({**waypoint, "workload.services": "Service/apps/books"}, LABELLED)
    denied = _denied(decide(books, text, SETTINGS), Reason.DENY_RULE_MATCHED, FORBIDDEN)
    assert denied.policy is not None
    assert denied.policy.id == "ns[apps]-policy[guard]-rule[0]"
    for services in ({"workload.services": "Service/apps/other"}, {}):
        _allowed(decide(_workload_request({**waypoint, **services}, LABELLED), text, SETTINGS))


@pytest.mark.parametrize(
    "said",
    [
        {"workload.gateway": ""},
        {"workload.gateway": "a b"},
        {"workload.gateway_class": "istio-waypoint"},
        {"workload.services": "Service/apps/books"},
        {"workload.gateway": "way", "workload.gateway_class": "istio-waypoint", "workload.services": "books"},
        {"workload.service": "Service/apps/books"},
    ],
)
def test_a_workload_that_the_route_says_wrongly_is_refused(said: dict[str, str]) -> None:
    _denied(decide(_workload_request(said), ALLOW_ALL, SETTINGS), Reason.WORKLOAD_UNKNOWN, UNAVAILABLE)
    _allowed(decide(_workload_request({"tenant": "x"}), ALLOW_ALL, SETTINGS))


# --- 3: the peer ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("principal", ["", "a.example", "CN=x"])
def test_strict_wants_a_client_certificate_of_the_mesh(principal: str) -> None:
    denied = _denied(decide(facts(principal=principal), STRICT_MTLS), Reason.MTLS_REQUIRED, FORBIDDEN)

    assert denied.policy is not None
    assert (denied.policy.id, denied.policy.source) == ("PeerAuthentication[apps/peers]", "policy.yaml:1")
    _allowed(decide(facts(principal=WEB), STRICT_MTLS))
    _allowed(decide(facts(principal=principal), peer_authentication("{mtls: {mode: PERMISSIVE}}")))


def test_a_ports_own_mode_holds_on_that_port_only() -> None:
    text = STRICT_MTLS + peer_authentication(
        "{selector: {matchLabels: {app: shop}}, portLevelMtls: {9000: {mode: PERMISSIVE}}}", "ports"
    )

    _allowed(decide(facts(principal="", port=9000), text))
    _denied(decide(facts(principal="", port=8080), text), Reason.MTLS_REQUIRED, FORBIDDEN)


PORTS: Final = peer_authentication(
    "{selector: {matchLabels: {app: shop}}, portLevelMtls: {9000: {mode: STRICT}}}", "ports"
)


def test_an_unknown_port_is_refused_where_ports_differ_in_strict_only() -> None:
    """Whether the port wants mTLS cannot be known, and guessing lets plaintext in."""
    denied = _denied(decide(facts(principal="", port=0), PORTS), Reason.REQUEST_INCOMPLETE, BAD_REQUEST)

    assert denied.detail == "the port is unknown, and PeerAuthentication asks for it"
    _allowed(decide(facts(principal="", port=0), PORTS, ISTIO))
    _allowed(decide(facts(principal="", port=8080), PORTS))
    _denied(decide(facts(principal="", port=9000), PORTS), Reason.MTLS_REQUIRED, FORBIDDEN)
    _allowed(decide(facts(principal="", port=0), peer_authentication("{mtls: {mode: PERMISSIVE}}")))


def test_where_mtls_is_disabled_there_is_no_peer() -> None:
    text = peer_authentication("{mtls: {mode: DISABLE}}")
    named = authorization("{rules: [{from: [{source: {principals: ['*']}}]}]}")

    _denied(decide(facts(), text + named), Reason.NO_ALLOW_RULE_MATCHED, FORBIDDEN)
    _allowed(decide(facts(), named))
    _allowed(decide(facts((XFCC, "garbage"), principal="spiffe://x/y,z"), text))


@pytest.mark.parametrize("text", [ALLOW_ALL, STRICT_MTLS])
def test_a_peer_of_another_trust_domain_is_refused(text: str) -> None:
    foreign = facts(principal="spiffe://foreign/ns/edge/sa/web")

    denied = _denied(decide(foreign, text), Reason.PEER_UNTRUSTED_DOMAIN, FORBIDDEN)
    assert denied.detail == "spiffe://foreign/ns/edge/sa/web is of another trust domain"
    _allowed(decide(foreign, text, Mesh(trust_domain="foreign")))
    _allowed(decide(foreign, text, Mesh(trust_domain_aliases=("foreign",))))


@pytest.mark.parametrize("posture", Posture)
@pytest.mark.parametrize(
    ("lines", "principal", "reason"),
    [
        ((), "spiffe://cluster.local", Reason.PEER_MALFORMED),
        (("garbage",), WEB, Reason.PEER_MALFORMED),
        (("Hash=1;URI=spiffe://cluster.local/ns/edge/sa/other",), WEB, Reason.PEER_MISMATCH),
    ],
)
def test_a_peer_that_cannot_be_established_is_refused(
    lines: tuple[str, ...], principal: str, reason: Reason, posture: Posture
) -> None:
    request = facts(*((XFCC, line) for line in lines), principal=principal)

    denied = _denied(decide(request, ALLOW_ALL, Mesh(posture=posture)), reason, FORBIDDEN)

    assert denied.detail
    assert denied.generation == 7


def test_the_peer_is_read_as_the_settings_say() -> None:
    rules = PeerRules(source=PeerSource.XFCC, xfcc_mode=XfccMode.SANITIZE_SET)
    request = facts((XFCC, f"Hash=1;URI={WEB}"), principal="")

    _allowed(decide(request, STRICT_MTLS, Mesh(peer=rules)))
    _denied(decide(request, STRICT_MTLS), Reason.MTLS_REQUIRED, FORBIDDEN)


# --- 4: the user ------------------------------------------------------------------------------------------------------

KEYS: Final = RemoteKeys("https://idp.example/jwks.json")
USERS: Final = request_authentication(
    "{jwtRules: [{issuer: https://idp.example, jwksUri: https://idp.example/jwks.json}]}"
)
ALICE: Final = authorization("{rules: [{from: [{source: {requestPrincipals: [https://idp.example/alice]}}]}]}")


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer("https://idp.example")


def _bearing(token: str, **more: Any) -> RequestFacts:
    return facts(("authorization", f"Bearer {token}"), **more)


def _with_keys(text: str, issuer: Issuer, mesh: Mesh | None = None) -> Snapshot:
    return snapshot(text, mesh, {KEYS: KeySet(keys=_published(issuer))})


def _published(issuer: Issuer) -> Any:
    return KeySet.parse(json.dumps(issuer.jwks())).keys


def _claims(**more: Any) -> dict[str, Any]:
    return {"sub": "alice", "exp": NOW + 60, **more}


def test_a_good_token_is_the_user(issuer: Issuer) -> None:
    known = _with_keys(USERS + ALICE, issuer)

    allowed = _allowed(settled(authorize(_bearing(issuer.sign(_claims())), known, NOW, may_wait=False)))
    assert allowed.reason is AllowReason.RULE_MATCHED
    assert allowed.policy is not None
    assert allowed.policy.id == "ns[apps]-policy[rule]-rule[0]"
    assert "authorization" in allowed.mutations.remove_headers
    other = authorize(_bearing(issuer.sign(_claims(sub="bob"))), known, NOW, may_wait=False)
    _denied(settled(other), Reason.NO_ALLOW_RULE_MATCHED, FORBIDDEN)
    _denied(settled(authorize(facts(), known, NOW, may_wait=False)), Reason.NO_ALLOW_RULE_MATCHED, FORBIDDEN)


@pytest.mark.parametrize("posture", Posture)
def test_a_remembered_token_decides_as_a_verified_one_and_goes_with_its_key(issuer: Issuer, posture: Posture) -> None:
    text, mesh = USERS + ALICE, Mesh(posture=posture)
    remembering = replace(_with_keys(text, issuer, mesh), tokens=TokenCache())
    assert remembering.tokens is not None
    alice = _bearing(issuer.sign(_claims()))

    decisions = [settled(authorize(alice, remembering, NOW, may_wait=False)) for _ in range(3)]
    assert decisions == [settled(authorize(alice, _with_keys(text, issuer, mesh), NOW, may_wait=False))] * 3
    assert (remembering.tokens.hits, remembering.tokens.misses) == (2, 1)
    late = settled(authorize(alice, remembering, NOW + 121, may_wait=False))
    _denied(late, Reason.TOKEN_EXPIRED, (401, "Jwt is expired"))
    rotated = replace(_with_keys(text, Issuer(issuer.issuer), mesh), tokens=remembering.tokens)
    gone = settled(authorize(alice, rotated, NOW, may_wait=False))
    assert isinstance(gone, Deny)
    assert gone.reason is Reason.TOKEN_UNKNOWN_KEY


NAMED: Final = request_authentication(
    "{jwtRules: [{issuer: https://idp.example, jwksUri: https://idp.example/jwks.json,"
    " outputClaimToHeaders: [{header: x-user, claim: sub}]}]}"
)
BY_HEADER: Final = authorization("{rules: [{when: [{key: 'request.headers[x-user]', values: [alice]}]}]}")


@pytest.mark.parametrize("posture", Posture)
def test_a_policy_sees_the_header_of_the_token_and_never_a_forged_one(issuer: Issuer, posture: Posture) -> None:
    """Envoy writes and removes such headers before its policies look (jwt_authn stands before rbac)."""
    snapshot = _with_keys(NAMED + BY_HEADER, issuer, Mesh(posture=posture))
    forged = facts(("x-user", "alice"))
    alice = _bearing(issuer.sign(_claims(sub="alice")))
    mallory = facts(("authorization", f"Bearer {issuer.sign(_claims(sub='mallory'))}"), ("x-user", "alice"))

    _allowed(settled(authorize(alice, snapshot, NOW, may_wait=False)))
    _denied(settled(authorize(forged, snapshot, NOW, may_wait=False)), Reason.NO_ALLOW_RULE_MATCHED, FORBIDDEN)
    _denied(settled(authorize(mallory, snapshot, NOW, may_wait=False)), Reason.NO_ALLOW_RULE_MATCHED, FORBIDDEN)


def test_a_bad_token_is_refused_though_everything_is_allowed(issuer: Issuer) -> None:
    known = _with_keys(USERS + ALLOW_ALL, issuer)

    for token, reason, text in (
        (issuer.forge(_claims()), Reason.TOKEN_SIGNATURE, "Jwt verification fails"),
        (issuer.sign(_claims(exp=NOW - 600)), Reason.TOKEN_EXPIRED, "Jwt is expired"),
    ):
        denied = _denied(settled(authorize(_bearing(token), known, NOW, may_wait=False)), reason, (401, text))
        assert denied.headers == (("www-authenticate", 'Bearer realm="https://shop.example/", error="invalid_token"'),)
        assert denied.policy is not None
        assert (denied.policy.id, denied.policy.source) == ("RequestAuthentication[apps/users]", "policy.yaml:4")
        assert token not in denied.detail + denied.body
        assert denied.generation == 7
    _allowed(settled(authorize(facts(), known, NOW, may_wait=False)))


def test_a_token_for_another_audience_is_forbidden_in_envoys_words(issuer: Issuer) -> None:
    text = USERS.replace("jwksUri", "audiences: [shop], jwksUri")
    known = _with_keys(text, issuer)

    denied = settled(authorize(_bearing(issuer.sign(_claims(aud="other"))), known, NOW, may_wait=False))
    _denied(denied, Reason.TOKEN_AUDIENCE, (403, "Audiences in Jwt are not allowed"))
    _allowed(settled(authorize(_bearing(issuer.sign(_claims(aud="shop"))), known, NOW, may_wait=False)))


@pytest.mark.parametrize(
    ("path", "realm"),
    [
        ("/", "/"),
        ("/a?b=c", "/a"),
        ("/a?access_token=a.b.c", "/a"),
        ("/" + "a" * 300, "/" + "a" * 255),
        ("/a\r\nx: y", None),
        ("/aé", None),
        ("/a b", None),
    ],
)
def test_the_challenge_names_the_place_or_is_left_out(path: str, realm: str | None, issuer: Issuer) -> None:
    known = _with_keys(USERS, issuer)

    denied = settled(authorize(_bearing("a.b.c", path=path), known, NOW, may_wait=False))

    assert isinstance(denied, Deny)
    challenge = f'Bearer realm="https://shop.example{realm}", error="invalid_token"'
    assert denied.headers == (() if realm is None else (("www-authenticate", challenge),))


def test_a_token_without_expiry_is_refused_in_strict_only(issuer: Issuer) -> None:
    token = issuer.sign({"sub": "alice"})

    strict = settled(authorize(_bearing(token), _with_keys(USERS + ALICE, issuer), NOW, may_wait=False))
    istio = authorize(_bearing(token), _with_keys(USERS + ALICE, issuer, ISTIO), NOW, may_wait=False)

    assert isinstance(strict, Deny)
    assert strict.reason is Reason.TOKEN_NO_EXPIRY
    _allowed(settled(istio))


def test_a_key_that_may_come_is_waited_for_and_then_is_missing(issuer: Issuer) -> None:
    nothing = snapshot(USERS + ALICE)
    request = _bearing(issuer.sign(_claims()))

    waiting = authorize(request, nothing, NOW, may_wait=True)
    assert waiting.awaits == frozenset({KEYS})
    denied = settled(authorize(request, nothing, NOW, may_wait=False))
    assert denied == waiting.decision
    assert isinstance(denied, Deny)
    assert denied.reason is Reason.KEYS_UNAVAILABLE
    assert denied.status == 401


def test_inline_keys_are_keys(issuer: Issuer) -> None:
    source = InlineKeys("{}")
    text = request_authentication("{jwtRules: [{issuer: https://idp.example, jwks: '{}'}]}") + ALICE
    known = snapshot(text, None, {source: KeySet(keys=_published(issuer))})

    _allowed(settled(authorize(_bearing(issuer.sign(_claims())), known, NOW, may_wait=False)))


def test_the_peer_is_judged_before_the_user(issuer: Issuer) -> None:
    request = _bearing("garbage", principal="")

    denied = settled(authorize(request, _with_keys(USERS + STRICT_MTLS, issuer), NOW, may_wait=True))

    _denied(denied, Reason.MTLS_REQUIRED, FORBIDDEN)


# --- the client's address ---------------------------------------------------------------------------------------------

BY_CLIENT: Final = authorization("{rules: [{from: [{source: {remoteIpBlocks: [1.2.3.0/24]}}]}]}")
NOT_CLIENT: Final = authorization("{action: DENY, rules: [{from: [{source: {remoteIpBlocks: [1.2.3.0/24]}}]}]}")


@pytest.mark.parametrize("posture", Posture)
def test_the_clients_address_is_found_as_the_settings_say(posture: Posture) -> None:
    request = facts(("x-forwarded-for", "1.2.3.4, 10.1.2.3"), ("x-client", "1.2.3.5"))
    plain, hop, header = (
        Mesh(posture=posture),
        Mesh(posture=posture, remote_ip_hops=1),
        Mesh(posture=posture, remote_ip_header="x-client"),
    )

    _denied(decide(request, BY_CLIENT, plain), Reason.NO_ALLOW_RULE_MATCHED, FORBIDDEN)
    _allowed(decide(request, BY_CLIENT, hop))
    _allowed(decide(request, BY_CLIENT, header))
    _allowed(decide(request, NOT_CLIENT, plain))
    _denied(decide(request, NOT_CLIENT, hop), Reason.DENY_RULE_MATCHED, FORBIDDEN)
    _denied(decide(request, NOT_CLIENT, header), Reason.DENY_RULE_MATCHED, FORBIDDEN)


def test_garbage_for_an_address_neither_allows_nor_escapes_a_deny() -> None:
    garbage = facts(("x-forwarded-for", "garbage, 10.1.2.3"), source="10.1.2.3")
    inside = facts(("x-forwarded-for", "garbage, 1.2.3.9"), source="1.2.3.9")
    strict, istio = Mesh(remote_ip_hops=1), Mesh(remote_ip_hops=1, posture=Posture.ISTIO)

    _denied(decide(garbage, NOT_CLIENT, strict), Reason.DENY_RULE_MATCHED, FORBIDDEN)
    _denied(decide(garbage, BY_CLIENT, strict), Reason.NO_ALLOW_RULE_MATCHED, FORBIDDEN)
    _allowed(decide(garbage, NOT_CLIENT, istio))  # Envoy: the address of the connection
    _denied(decide(inside, NOT_CLIENT, istio), Reason.DENY_RULE_MATCHED, FORBIDDEN)


@pytest.mark.parametrize("lines", [(), ("garbage",), ("8.8.8.8", "8.8.8.8")])
def test_an_address_header_that_envoy_did_not_write_once_neither_allows_nor_escapes_a_deny(
    lines: tuple[str, ...],
) -> None:
    sent = tuple(("x-client", line) for line in lines)
    outside, inside = facts(*sent, source="10.1.2.3"), facts(*sent, source="1.2.3.9")
    strict = Mesh(remote_ip_header="x-client")

    for request in (outside, inside):
        _denied(decide(request, NOT_CLIENT, strict), Reason.DENY_RULE_MATCHED, FORBIDDEN)
        _denied(decide(request, BY_CLIENT, strict), Reason.NO_ALLOW_RULE_MATCHED, FORBIDDEN)
    _allowed(decide(facts(("x-client", "8.8.8.8"), source="1.2.3.9"), NOT_CLIENT, strict))


def test_without_an_address_in_its_header_istio_takes_the_connections_as_envoy_does() -> None:
    istio = Mesh(remote_ip_header="x-client", posture=Posture.ISTIO)

    for sent in ((), (("x-client", "garbage"),)):
        outside, inside = facts(*sent, source="10.1.2.3"), facts(*sent, source="1.2.3.9")
        _allowed(decide(outside, NOT_CLIENT, istio))
        _denied(decide(inside, NOT_CLIENT, istio), Reason.DENY_RULE_MATCHED, FORBIDDEN)
        _denied(decide(outside, BY_CLIENT, istio), Reason.NO_ALLOW_RULE_MATCHED, FORBIDDEN)
        _allowed(decide(inside, BY_CLIENT, istio))


# --- 5: the policies --------------------------------------------------------------------------------------------------


def test_both_signatures_are_needed_where_a_rule_names_both(issuer: Issuer) -> None:
    both = authorization(
        "{rules: [{from: [{source: {principals: [cluster.local/ns/edge/sa/web],"
        " requestPrincipals: [https://idp.example/alice]}}]}]}"
    )
    known, token = _with_keys(USERS + both, issuer), issuer.sign(_claims())

    _allowed(settled(authorize(_bearing(token), known, NOW, may_wait=False)))
    for request in (
        _bearing(token, principal=""),
        _bearing(token, principal="spiffe://cluster.local/ns/edge/sa/other"),
        facts(),
    ):
        _denied(settled(authorize(request, known, NOW, may_wait=False)), Reason.NO_ALLOW_RULE_MATCHED, FORBIDDEN)


def test_a_denial_by_a_rule_names_it_to_the_operator_alone() -> None:
    denied = _denied(
        decide(facts(), authorization("{action: DENY, rules: [{}]}", "stop")), Reason.DENY_RULE_MATCHED, FORBIDDEN
    )

    assert denied.policy is not None
    assert (denied.policy.id, denied.policy.source) == ("ns[apps]-policy[stop]-rule[0]", "policy.yaml:4")
    assert denied.headers == ()


def test_an_unreadable_attribute_is_named_to_the_operator() -> None:
    denied = decide(
        facts(path="//admin"), authorization("{action: DENY, rules: [{to: [{operation: {paths: [/admin]}}]}]}")
    )

    assert _denied(denied, Reason.DENY_RULE_MATCHED, FORBIDDEN).detail.startswith("paths: ")


def test_the_mesh_has_its_trust_domain_and_its_aliases() -> None:
    text = authorization("{rules: [{from: [{source: {principals: [cluster.local/ns/edge/sa/web]}}]}]}")
    mesh = Mesh(trust_domain="new.example", trust_domain_aliases=("old.example",))

    assert mesh.trust_domains == ("new.example", "old.example")
    for domain in mesh.trust_domains:
        _allowed(decide(facts(principal=f"spiffe://{domain}/ns/edge/sa/web"), text, mesh))


TENANTS: Final = ", ".join(f"{{when: [{{key: 'request.headers[x-tenant]', values: [t{n}]}}]}}" for n in range(20))


@pytest.mark.parametrize("posture", Posture)
@pytest.mark.parametrize("lines", [(), ("t7",), ("t7", "t8"), ("t7,t8",), ("t99",), ("t7\udcff",)])
def test_many_rules_decide_as_few_do_and_as_the_definition(lines: tuple[str, ...], posture: Posture) -> None:
    """Many are looked up by what they ask for; `judge` asks them all, for the explanation."""
    request = facts(*(("x-tenant", line) for line in lines))
    mesh = Mesh(posture=posture)

    for action in ("ALLOW", "DENY"):
        many = snapshot(authorization(f"{{action: {action}, rules: [{TENANTS}]}}"), mesh)
        served = settled(authorize(request, many, NOW, may_wait=False))
        explained = judge(request, many, lambda _, __: Authenticated(token=None, mutations=Mutations()))
        assert isinstance(explained, Judgement)
        assert (explained.decision.reason, explained.decision.policy) == (served.reason, served.policy)
        assert explained.step is Step.POLICIES
        assert explained.evaluation is not None
        assert explained.evaluation.rules


# --- the published attacks, in posture strict ---------------------------------------------------------------


def _rule(policy: str) -> str:
    """The policies of a row of the path table, in YAML."""
    if policy.startswith("DENY /admin"):
        return _operation("DENY", "paths: [/admin, /admin/*]")
    if policy.startswith("DENY /user"):
        return _operation("DENY", "paths: [/user/profile]")
    if policy.startswith("ALLOW /public"):
        return _operation("ALLOW", "paths: [/public]")
    action, _, fields = policy.removesuffix("; else ALLOW").partition(" ")
    return _operation(action, fields.replace(":[", ": ['").replace("]", "']").replace("']'", "]'"))


def _operation(action: str, fields: str) -> str:
    return authorization(f"{{action: {action}, rules: [{{to: [{{operation: {{{fields}}}}}]}}]}}")


# Rows that we decide otherwise, and why.
OTHER_PATHS: Final = {
    "/admin%c0%af": "an escape above ASCII is opaque data, another path than /admin (the row's own alternative)",
}


def test_the_published_path_attacks() -> None:
    cases = vectors.json_file("vectors/paths/authz_path_attacks.json")["cases"]

    assert len(cases) == 87
    for case in cases:
        text = _rule(case["policy"])
        decision = decide(facts(path=case["path"], method=case.get("method", "GET")), text)
        expect = "allow" if case["path"] in OTHER_PATHS else case["expect"]
        assert ("allow" if isinstance(decision, Allow) else "deny") == expect, case


SPIFFE: Final = "spiffe://"


def _attack(case: dict[str, Any]) -> tuple[str, RequestFacts]:
    """The policies and the request of a row of the attribute table."""
    policy, given = case["policy"], dict(case["request"])
    action, _, rest = policy.removesuffix("; else ALLOW").partition(" ")
    kind = case["category"]
    pairs: list[tuple[str, str]] = []
    for name, value in given.pop("headers", {}).items():
        if value == "61646d696eff":
            value = "admin\udcff"  # noqa: PLW2901 (the row has raw bytes in hex)
        pairs += [(name, line) for line in ([value] if isinstance(value, str) else value or [])]
    joined = not any(isinstance(value, list) for value in case["request"].get("headers", {}).values())
    joined = joined and not any("\udcff" in line for _, line in pairs)
    renamed = {"source_ip": "source", "principal": "principal", "host": "host", "path": "path", "method": "method"}
    request = facts(*pairs, joined=joined, **{renamed[name]: value for name, value in given.items()})
    return _attack_rule(kind, action, rest), request


def _attack_rule(kind: str, action: str, rest: str) -> str:
    if rest.startswith(("when ", "request.headers")):
        key, _, values = rest.removeprefix("when ").partition(" ")
        field = "notValues" if values.startswith("notValues") else "values"
        listed = values.removeprefix("in ").removeprefix("notValues ")
        return authorization(f"{{action: {action}, rules: [{{when: [{{key: '{key}', {field}: {listed}}}]}}]}}")
    fields = ", ".join(part.replace(":[", ": [", 1) for part in rest.split(" ")) if kind != "principal" else rest
    if kind in {"host", "ip"} and "'" not in fields:
        fields = fields.replace("[", "['").replace("]", "']")
    if kind == "principal":
        inner = rest.removeprefix("principals:[").removesuffix("]")
        fields = f"namespaces: ['{inner[12:-1]}']" if inner.startswith("namespaces:[") else f"principals: ['{inner}']"
    part, member = ("from", "source") if kind in {"ip", "principal"} else ("to", "operation")
    return authorization(f"{{action: {action}, rules: [{{{part}: [{{{member}: {{{fields}}}}}]}}]}}")


# Rows on which the design or Istio's own meaning differs, or that leave the choice to us: name -> our decision, why.
DECIDED: Final[dict[str, str]] = {
    "host 'se\u0441ret.com'": "deny",  # not ASCII: refused outright, as the row's own note prefers
    "ALLOW hosts:[a.com] vs a.com:443": "deny",  # the port is part of the value in an ALLOW, as in Istio
    # Envoy's RBAC takes it for IPv6, others for IPv4: an ALLOW wants both readings.
    "ALLOW ipBlocks:[10.0.0.0/8] vs ::ffff:10.1.2.3": "deny",
    # Trust domains are checked before any policy: a foreign peer is refused, whatever its principal matches.
    "*/ns/a/sa/b vs spiffe://evil.td/ns/a/sa/b": "deny",
    # `namespaces` is Istio's own pattern .*/ns/<v>/.*, not anchored (design, section 5.4).
    "namespaces:[a] vs spiffe://cluster.local/x/ns/a/sa/b": "allow",
    "namespaces:[a] vs spiffe://cluster.local/ns/a/sa/b/ns/c": "allow",
    "namespaces:[prod] vs spiffe://cluster.local/ns/dev/sa/x/ns/prod/sa/y": "allow",
}
ELSEWHERE: Final = frozenset({"claim", "requestPrincipal", "remote_ip"})  # test_claims.py, core/test_remote_ip.py


def test_the_published_attribute_attacks() -> None:
    cases = vectors.json_file("vectors/requests/authz_request_attacks.json")["cases"]
    compared = 0

    assert len(cases) == 121
    for case in cases:
        name = case["name"]
        if case["category"] in ELSEWHERE or case["expect"] == "config-error" or "serviceAccounts" in name:
            continue  # the one row of service accounts is in policy/test_peers.py
        text, request = _attack(case)
        expect = DECIDED.get(name, case["expect"].removesuffix("-or-400"))
        decision = decide(request, text)
        assert ("allow" if isinstance(decision, Allow) else "deny") == expect, (case, decision)
        compared += 1
    assert compared == 84


def test_a_missing_token_is_asked_for_without_calling_it_invalid() -> None:
    """RFC 6750 section 3.1: no error code where no token was sent; Envoy's jwt_authn does the same."""
    rule = "jwtRules: [{issuer: 'https://i', jwks: '{\"keys\":[]}', presence: REQUIRED}]"
    denied = decide(facts(), request_authentication(f"{{{rule}}}"))

    assert isinstance(denied, Deny)
    assert (denied.reason, denied.status, denied.body) == (Reason.TOKEN_MISSING, 401, "Jwt is missing")
    assert denied.headers == (("www-authenticate", 'Bearer realm="https://shop.example/"'),)
    optional = request_authentication(f"{{{rule.replace('REQUIRED', 'OPTIONAL')}}}")
    assert isinstance(decide(facts(), optional), Allow)
