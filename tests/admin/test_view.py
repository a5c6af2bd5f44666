"""What the admin API shows: policies, keys, denials and why, and nothing that is a secret."""

import json
import re
import time
from dataclasses import replace
from typing import Any, Final

import pytest
from countersign.admin.denials import Denial, Noted
from countersign.core.jwt_rule import FileKeys, RemoteKeys
from countersign.edge.check import Checker
from countersign.mesh.issuer import Issuer
from countersign.policy.workload import Workload
from countersign.snapshot import Mesh, Snapshot
from countersign.tokens.keyring import Origin, SourceState
from countersign.tokens.keys import KeySet
from google.protobuf import json_format

from tests.admin.asking import JSON, api, ask
from tests.edge.serving import READERS, request, snapshot

ISSUER: Final = "https://issuer.test"
REMOTE: Final = RemoteKeys("http://127.0.0.1:1/jwks.json?key=hidden", 5.0)
USERS: Final = """\
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: ports, namespace: apps}
spec:
  selector: {matchLabels: {app: shop}}
  mtls: {mode: STRICT}
  portLevelMtls: {8080: {mode: DISABLE}}
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: users, namespace: apps}
spec:
  jwtRules: [{issuer: "https://issuer.test", jwksUri: "http://127.0.0.1:1/jwks.json?key=hidden"}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: users, namespace: apps}
spec:
  selector: {matchLabels: {app: shop, version: v1}}
  rules: [{from: [{source: {requestPrincipals: ["https://issuer.test/*"]}}]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: tried, namespace: apps, annotations: {istio.io/dry-run: "true"}}
spec: {action: DENY, rules: [{}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: everywhere, namespace: istio-system}
spec: {action: DENY, rules: [{to: [{operation: {paths: [/x]}}]}, {to: [{operation: {paths: [/y]}}]}]}
"""
COOKIE: Final = "session=cookie-secret"
CERTIFICATE: Final = "-----BEGIN%20CERTIFICATE-----%0AMIIB"
XFCC: Final = (
    f'By=spiffe://cluster.local/ns/apps/sa/httpbin;Cert="{CERTIFICATE}";URI=spiffe://cluster.local/ns/apps/sa/sleep'
)


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer(ISSUER)


def keys_of(issuer: Issuer) -> KeySet:
    return KeySet.parse(json.dumps(issuer.jwks()))


def token_of(issuer: Issuer, **claims: Any) -> str:
    return issuer.sign({"iss": ISSUER, "sub": "alice", "exp": int(time.time()) + 600, **claims})


def denials_of(current: Snapshot, *payloads: bytes) -> tuple[Denial, ...]:
    """What is noted of these checks, each of which is denied."""
    noted, faults = Noted(), list[Exception]()
    checker = Checker(lambda: current, lambda _: None, faults.append, noted.observe)
    for payload in payloads:
        checker.answer(payload, None)
    assert not faults
    return noted.take()


def test_the_policies_of_a_workload_are_those_that_its_labels_select() -> None:
    with api(lambda: snapshot(USERS)) as admin:
        shop = ask(admin.port, "/policies?workload=apps/shop&label=version=v1").json
        other = ask(admin.port, "/policies?workload=apps/shop").json
        elsewhere = ask(admin.port, "/policies?workload=shops").json
    named = [
        (each["action"], each["policy"], len(each["rules"]), each["dry_run"]) for each in shop["authorization_policies"]
    ]
    assert named == [
        ("DENY", "everywhere.istio-system", 2, False),
        ("ALLOW", "users.apps", 1, False),
        ("DENY", "tried.apps", 1, True),
    ]
    assert shop["labels"] == {"app": "shop", "version": "v1"}
    assert shop["request_authentications"] == [
        {"policy": "users.apps", "issuers": [ISSUER], "source": "policies.yaml:9"}
    ]
    assert [(each["port"], each["mode"], each["policy"]) for each in shop["peer_authentication"]] == [
        (None, "STRICT", "ports.apps"),
        (8080, "DISABLE", "ports.apps"),
    ]
    assert "users.apps" not in [each["policy"] for each in other["authorization_policies"]]
    assert [each["policy"] for each in elsewhere["authorization_policies"]] == ["everywhere.istio-system"]
    assert elsewhere["request_authentications"] == []
    assert [(each["mode"], each["policy"]) for each in elsewhere["peer_authentication"]] == [("PERMISSIVE", "")]


def test_without_a_workload_every_policy_and_every_workload_that_was_asked_for_are_there() -> None:
    asked = [Workload("apps", (("app", "shop"),), gateway="")]
    with api(lambda: snapshot(USERS), workloads=asked) as admin:
        found = ask(admin.port, "/policies").json
    assert found["generation"] == 1
    assert found["workloads"] == [{"namespace": "apps", "labels": {"app": "shop"}, "gateway": ""}]
    assert [(each["kind"], each["policy"], each["action"], each["source"]) for each in found["policies"]] == [
        ("PeerAuthentication", "ports.apps", "", "policies.yaml:1"),
        ("RequestAuthentication", "users.apps", "", "policies.yaml:9"),
        ("AuthorizationPolicy", "users.apps", "ALLOW", "policies.yaml:15"),
        ("AuthorizationPolicy", "tried.apps", "DENY", "policies.yaml:22"),
        ("AuthorizationPolicy", "everywhere.istio-system", "DENY", "policies.yaml:27"),
    ]


def test_before_any_policy_has_loaded_there_is_nothing() -> None:
    empty = Snapshot(mesh=Mesh(), policies=None, keys={})
    with api(lambda: empty) as admin:
        assert ask(admin.port, "/policies").json == {"generation": 0, "policies": [], "workloads": []}
        assert ask(admin.port, "/policies?workload=apps/shop").json["authorization_policies"] == []
        assert ask(admin.port, "/jwks").json == {"sources": []}
        assert _explained(admin.port)["reason"] == "no-policies-loaded"


def _explained(port: int, **changed: Any) -> Any:
    body = json_format.MessageToJson(request(**changed))
    return ask(port, "/explain", "POST", body, content_type=JSON).json


def test_the_keys_of_each_source_are_public_and_say_how_old_they_are(issuer: Issuer) -> None:
    good = keys_of(issuer)
    mixed = KeySet.parse(json.dumps({"keys": [*issuer.jwks()["keys"], {"kty": "oct", "kid": "bad", "k": "c2VjcmV0"}]}))
    states = [
        _state(REMOTE, mixed, Origin.FETCHED, error="", age=12.4),
        _state(FileKeys("/keys/other.json"), None, None, error="status 500", age=None),
    ]
    with api(lambda: snapshot(USERS, {REMOTE: good}), keys=states) as admin:
        answer = ask(admin.port, "/jwks")
    remote, file = answer.json["sources"]
    assert re.fullmatch(r"http://127\.0\.0\.1:1/jwks\.json\?REDACTED-[0-9a-f]{8}", remote["source"])
    assert remote["issuers"] == [ISSUER]
    assert (remote["origin"], remote["age_seconds"], remote["next_refresh_in_seconds"]) == ("fetched", 12, 60)
    kids = [(key.kid, True) for key in good.keys]
    assert [(key["kid"], key["usable"]) for key in remote["keys"]] == [*kids, ("bad", False)]
    assert remote["keys"][0]["algorithms"] == sorted(good.keys[0].algorithms)
    assert len(remote["keys"][0]["thumbprint"]) == 43
    assert remote["keys"][-1]["why_not"]
    assert (file["source"], file["error"], file["failures"], file["keys"]) == ("/keys/other.json", "status 500", 3, [])
    assert "hidden" not in answer.text
    assert "c2VjcmV0" not in answer.text


def _state(
    source: RemoteKeys | FileKeys, keys: KeySet | None, origin: Origin | None, *, error: str, age: float | None
) -> SourceState:
    return SourceState(
        source=source,
        keys=keys,
        origin=origin,
        age=age,
        expires_in=None if age is None else 100.0,
        error=error,
        failures=3 if error else 0,
        refresh_in=60.0,
    )


def test_a_denial_is_found_by_its_id_with_its_explanation() -> None:
    current = snapshot()
    allowed = request().SerializeToString()
    denied = denials_of(current, allowed, request(method="DELETE", path="/headers?secret=1").SerializeToString())
    with api(lambda: current, denials=lambda: denied) as admin:
        (listed,) = ask(admin.port, "/decisions").json["denials"]
        found = ask(admin.port, f"/decisions/{listed['id']}").json
        asked = ask(admin.port, f"/explain?decision={listed['id']}").json
    assert listed["reason"] == "no-allow-rule-matched"
    assert listed["request"] == "DELETE /headers?... of httpbin"
    assert listed["peer"] == "spiffe://cluster.local/ns/apps/sa/sleep"
    assert found == asked == {**listed, "explanation": found["explanation"]}
    (field,) = found["explanation"]["nearest"]["fields"]
    assert (field["field"], field["wanted"], field["got"]) == ("methods", ["GET"], "DELETE")
    assert not [note for note in found["explanation"]["notes"] if "asked again" in note]


def test_nothing_that_is_shown_has_a_token_a_cookie_or_a_certificate(issuer: Issuer) -> None:
    looks_at_all = (
        USERS
        + """\
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: looks, namespace: apps}
spec:
  rules:
  - when:
    - {key: "request.headers[x-other]", values: [a]}
    - {key: "request.headers[cookie]", values: [a]}
    - {key: "request.headers[authorization]", values: [a]}
    - {key: "request.headers[x-forwarded-client-cert]", values: [a]}
"""
    )
    current = snapshot(looks_at_all, {REMOTE: keys_of(issuer)})
    token = token_of(issuer, exp=int(time.time()) - 3600)
    headers = {"authorization": f"Bearer {token}", "cookie": COOKIE, "x-forwarded-client-cert": XFCC}
    secret = request(path=f"/?access_token={token}", headers=headers)
    good = request(headers={**headers, "x-other": token, "authorization": f"Bearer {token_of(issuer)}"})
    denied = denials_of(current, secret.SerializeToString(), good.SerializeToString())
    assert {str(denial.denied.reason) for denial in denied} == {"token-expired", "no-allow-rule-matched"}
    with api(lambda: current, denials=lambda: denied) as admin:
        texts = [ask(admin.port, "/decisions").text]
        texts += [ask(admin.port, f"/decisions/{denial.id}").text for denial in denied]
        body = json_format.MessageToJson(good)
        texts.append(ask(admin.port, "/explain", "POST", body, content_type=JSON).text)
    assert "(there, not shown)" in texts[-1]
    for text in texts:
        for part in (*token.split("."), *headers["authorization"].split("."), "cookie-secret", CERTIFICATE, "MIIB"):
            assert part not in text


def test_a_denial_that_would_be_none_now_says_so() -> None:
    before, now = snapshot(), snapshot(READERS.replace("GET", "DELETE"))
    assert now.policies is not None
    now.policies.generation = 2
    denied = denials_of(before, request(method="DELETE").SerializeToString())
    with api(lambda: now, denials=lambda: denied) as admin:
        found = ask(admin.port, f"/decisions/{denied[0].id}").json
    assert found["reason"] == "no-allow-rule-matched"
    assert found["explanation"]["decision"] == "ALLOW"
    assert found["explanation"]["notes"][:2] == [
        "it was denied for no-allow-rule-matched; asked again it is ALLOW, allow-rule-matched",
        "asked again by policies of generation 2; those of 1 had denied",
    ]


def test_a_denial_is_explained_at_its_own_time(issuer: Issuer) -> None:
    current = snapshot(USERS, {REMOTE: keys_of(issuer)})
    payload = request(path="/x", headers={"authorization": f"Bearer {token_of(issuer, exp=1000)}"}).SerializeToString()
    (denied,) = denials_of(current, payload)
    valid, expired = replace(denied, id="a", at=900.0), replace(denied, id="b", at=1100.0)
    with api(lambda: current, denials=lambda: (valid, expired)) as admin:
        found = [ask(admin.port, f"/decisions/{name}").json["explanation"]["reason"] for name in ("a", "b")]
    assert found == ["deny-rule-matched", "token-expired"]


def test_a_denial_whose_request_was_too_large_or_cannot_be_read_is_there() -> None:
    current = snapshot()
    large = request(method="DELETE", headers={"x": "y" * 70_000}).SerializeToString()
    denied = denials_of(current, large, b"\xff")
    with api(lambda: current, denials=lambda: denied) as admin:
        first, second = (ask(admin.port, f"/decisions/{denial.id}").json for denial in denied)
    assert (first["reason"], first["explanation"]) == ("no-allow-rule-matched", None)
    assert (second["reason"], second["explanation"]["reason"]) == ("request-malformed", "request-malformed")


def test_a_request_is_explained_as_it_would_be_decided_and_only_real_tokens_count(issuer: Issuer) -> None:
    current = snapshot(
        USERS, {REMOTE: keys_of(issuer)}, Mesh(namespace="apps", labels=(("app", "shop"), ("version", "v1")))
    )
    forged = token_of(Issuer(ISSUER))
    with api(lambda: current) as admin:
        good = _explained(admin.port, headers={"authorization": f"Bearer {token_of(issuer)}"})
        bad = _explained(admin.port, headers={"authorization": f"Bearer {forged}"})
    assert (good["decision"], good["policy"]["id"]) == ("ALLOW", "ns[apps]-policy[users]-rule[0]")
    assert good["user"]["signature"] == "verified"
    assert (bad["decision"], bad["reason"]) == ("DENY", "token-unknown-key")


def test_whoever_asks_leaves_nothing_in_the_memory_of_the_checks() -> None:
    current = snapshot()
    assert current.policies is not None
    with api(lambda: current) as admin:
        assert _explained(admin.port)["decision"] == "ALLOW"
        assert ask(admin.port, "/policies?workload=apps/made-up").status == 200
    assert current.policies.workloads() == ()
