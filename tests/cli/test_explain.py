"""`countersign explain`: the decision of the pipeline, and why, for a described or a recorded request."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from countersign.cli.explanation_text import Style
from countersign.explanation.conceal import printable

from tests.cli.explaining import GATEWAY, POLICIES, SLEEP, Explain
from tests.support.requests import authorization, peer_authentication, request_authentication
from tests.tokens.material import NOW, jwk, sign

ROOT = Path(__file__).resolve().parents[2]
ISSUER = "https://issuer.example"
STAFF = {"iss": ISSUER, "sub": "alice", "aud": "httpbin", "groups": ["staff"], "exp": NOW + 600}
AT = ("--time", str(NOW))


@pytest.fixture
def explain(capsys: pytest.CaptureFixture[str]) -> Explain:
    return Explain(capsys)


def claims(**changes: Any) -> tuple[str, str]:
    every = {name: value for name, value in {**STAFF, **changes}.items() if value is not None}
    return "--claims", json.dumps(every)


def jwks(directory: Path, which: int = 0) -> tuple[str, str]:
    file = directory / "keys.json"
    file.write_text(json.dumps({"keys": [jwk("ES256", which)]}))
    return "--jwks", str(file)


def policy(directory: Path, text: str) -> tuple[str, str]:
    file = directory / "policy.yaml"
    file.write_text(text)
    return "--policies", str(file)


# The decision and its exit code


def test_an_allowed_request_names_its_rule_and_exits_with_0(explain: Explain) -> None:
    result = explain(*SLEEP, "GET", "/headers")

    assert result.code == 0
    assert result.out.startswith("ALLOW allow-rule-matched by ns[apps]-policy[readers]-rule[0]")
    assert "allow-workloads.yaml:13)" in result.out


def test_a_denied_request_exits_with_1_and_says_what_the_client_gets(explain: Explain) -> None:
    result = explain(*SLEEP, "DELETE", "/headers")

    assert result.code == 1
    assert result.out.startswith("DENY no-allow-rule-matched\n  the client gets: 403 RBAC: access denied\n")


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_exit_zero_is_for_people_who_only_read(explain: Explain, method: str) -> None:
    assert explain(*SLEEP, method, "/headers", "--exit-zero").code == 0


def test_a_default_deny_names_the_nearest_rule_and_what_kept_it_from_matching(explain: Explain) -> None:
    nearest = explain.json(*SLEEP, "DELETE", "/headers")["nearest"]

    assert nearest["id"] == "ns[apps]-policy[readers]-rule[0]"
    assert [(field["field"], field["wanted"], field["got"]) for field in nearest["fields"]] == [
        ("methods", ["GET", "HEAD"], "DELETE")
    ]


def test_a_deny_rule_that_matches_is_the_last_one_asked(explain: Explain) -> None:
    legacy = ("--as", "spiffe://cluster.local/ns/legacy/sa/sleep", "--to", "apps/httpbin")
    result = explain.json(*legacy, "GET", "/headers")

    assert (result["reason"], result["nearest"]) == ("deny-rule-matched", None)
    assert result["policy"]["id"] == result["rules"][-1]["id"] == "ns[apps]-policy[no-legacy]-rule[0]"
    assert result["rules"][-1]["fields"][0]["outcome"] == "match"


# The pipeline


@pytest.mark.parametrize(
    ("words", "step", "reason"),
    [
        ((*SLEEP, "GET", "/a\x7f"), "request", "request-malformed"),
        (("GET", "/headers"), "workload", "workload-unknown"),
        (("--to", "apps/httpbin", "GET", "/headers"), "peer", "mtls-required"),
        ((*GATEWAY, "GET", "/headers", *claims(exp=1), *AT), "token", "token-expired"),
        ((*GATEWAY, "GET", "/headers"), "policies", "no-allow-rule-matched"),
    ],
)
def test_the_step_that_decided_is_marked_and_later_ones_were_not_reached(
    explain: Explain, words: tuple[str, ...], step: str, reason: str
) -> None:
    result = explain.json(*words)
    outcomes = {line["step"]: line["outcome"] for line in result["pipeline"]}
    before, after = list(outcomes).index(step), list(outcomes)[list(outcomes).index(step) + 1 :]

    assert (result["step"], result["reason"], outcomes[step]) == (step, reason, "denied")
    assert set(list(outcomes.values())[:before]) <= {"passed"}
    assert {outcomes[name] for name in after} <= {"not reached"}


def test_every_step_says_what_it_found(explain: Explain) -> None:
    result = explain.json(*GATEWAY, "GET", "/headers", "--host", "httpbin", *claims(), *AT)

    assert result["decision"] == "ALLOW"
    assert {line["outcome"] for line in result["pipeline"]} == {"passed", "allowed"}
    assert result["pipeline"][0]["found"] == "GET /headers of httpbin"
    assert result["workload"] == {
        "namespace": "apps",
        "labels": {"app": "httpbin"},
        "gateway": "",
        "gateway_class": "",
        "services": [],
    }
    assert result["peer"] == "spiffe://cluster.local/ns/edge/sa/gateway"
    assert result["mtls"]["mode"] == "STRICT"
    assert result["mtls"]["policy"]["id"] == "PeerAuthentication[apps/default]"
    assert (result["user"]["subject"], result["user"]["claims"]["groups"]) == ("alice", ["staff"])


def test_the_keys_of_the_json_are_stable(explain: Explain) -> None:
    result = explain.json(*SLEEP, "GET", "/headers")

    assert list(result) == [
        *("decision", "reason", "detail", "policy", "step", "response", "changes", "pipeline", "workload", "peer"),
        *("mtls", "user", "bindings", "rules", "nearest", "audit", "dry_run", "notes"),
    ]
    assert list(result["rules"][0]) == ["id", "source", "action", "outcome", "fields", "dry_run"]
    assert list(result["rules"][0]["fields"][0]) == [
        *("part", "index", "field", "negated", "wanted", "got", "outcome", "source")
    ]


# Fields


def test_a_field_that_has_two_readings_is_said_to_be_ambiguous(explain: Explain) -> None:
    doubtful = explain(*SLEEP, "GET", "//headers")
    plain = explain(*SLEEP, "GET", "/headers")

    assert (doubtful.code, plain.code) == (1, 0)
    assert "? to: paths wanted /headers, /ip; got //headers - ambiguous" in doubtful.out
    assert "ambiguous" not in plain.out


@pytest.mark.parametrize(
    ("spec", "flag", "value"),
    [
        ("{rules: [{to: [{operation: {ports: ['8080']}}]}]}", "--port", "8080"),
        ("{rules: [{to: [{operation: {hosts: [shop]}}]}]}", "--host", "shop"),
        ("{rules: [{to: [{operation: {notHosts: [evil]}}]}]}", "--host", "shop"),
        ("{rules: [{from: [{source: {ipBlocks: [10.0.0.0/8]}}]}]}", "--source-ip", "10.1.2.3"),
        ("{rules: [{when: [{key: destination.ip, values: [10.0.0.1]}]}]}", "--destination-ip", "10.0.0.1"),
    ],
)
def test_what_was_not_said_but_is_asked_for_names_its_flag(
    explain: Explain, tmp_path: Path, spec: str, flag: str, value: str
) -> None:
    words = (*policy(tmp_path, authorization(spec)), "--to", "apps/shop", "GET", "/")
    unsaid = explain(*words)
    said = explain(*words, flag, value)

    assert (unsaid.code, said.code) == (1, 0)
    assert f"not known, {flag} says it" in unsaid.out


def test_a_negated_condition_wants_none_of_its_values(explain: Explain, tmp_path: Path) -> None:
    spec = "{rules: [{when: [{key: 'request.headers[x-tier]', notValues: [gold]}]}]}"
    words = (*policy(tmp_path, authorization(spec)), "--to", "apps/shop", "GET", "/", "--header")
    denied = explain(*words, "X-Tier: gold")

    assert (denied.code, explain(*words, "x-tier: tin").code) == (1, 0)
    assert "wanted none of gold; got 'gold'" in denied.out


def test_several_entries_of_one_part_are_told_apart(explain: Explain, tmp_path: Path) -> None:
    spec = "{rules: [{to: [{operation: {methods: [PUT]}}, {operation: {methods: [GET]}}]}]}"
    words = (*policy(tmp_path, authorization(spec)), "--to", "apps/shop")
    allowed = explain(*words, "GET", "/")

    assert (allowed.code, explain(*words, "POST", "/").code) == (0, 1)
    assert "to[0]: methods wanted PUT; got GET" in allowed.out
    assert "to[1]: methods wanted GET; got GET" in allowed.out


def test_a_rule_without_conditions_is_for_every_request(explain: Explain, tmp_path: Path) -> None:
    words = ("--to", "apps/shop", "GET", "/")
    everybody = explain(*policy(tmp_path, authorization("{rules: [{}]}")), *words)
    nobody = explain(*policy(tmp_path, authorization("{}")), *words)

    assert (everybody.code, nobody.code) == (0, 1)
    assert "no conditions: it is for every request" in everybody.out
    assert "an ALLOW policy without rules allows nothing" in nobody.out


def test_a_workload_without_allow_policy_is_open_and_that_is_said(explain: Explain) -> None:
    peer = ("--as", "spiffe://cluster.local/ns/apps/sa/sleep")
    other = explain(*peer, "--to", "apps/other", "GET", "/headers")

    assert (other.code, explain(*peer, "--to", "apps/other", "GET", "/internal").code) == (0, 1)
    assert "note: no ALLOW policy applies to this workload" in other.out


def test_a_dry_run_and_an_audit_are_told_and_change_nothing(explain: Explain, tmp_path: Path) -> None:
    tried = authorization("{action: DENY, rules: [{to: [{operation: {methods: [GET]}}]}]}", name="tried").replace(
        "namespace: apps}", "namespace: apps, annotations: {istio.io/dry-run: 'true'}}"
    )
    audited = authorization("{action: AUDIT, rules: [{}]}", name="audited")
    words = (*policy(tmp_path, tried + audited), "--to", "apps/shop")
    get, post = explain(*words, "GET", "/"), explain(*words, "POST", "/")

    assert (get.code, post.code) == (0, 0)
    assert "  audited by ns[apps]-policy[audited]-rule[0]" in get.out
    assert "with the policies of the dry run: DENY deny-rule-matched by ns[apps]-policy[tried]-rule[0]" in get.out
    assert "with the policies of the dry run: ALLOW" in post.out


def test_the_rules_of_an_audit_and_of_a_dry_run_are_traced_as_what_they_are(explain: Explain, tmp_path: Path) -> None:
    tried = authorization("{rules: [{to: [{operation: {methods: [PUT]}}]}, {to: [{operation: {methods: [GET]}}]}]}")
    tried = tried.replace("namespace: apps}", "namespace: apps, annotations: {istio.io/dry-run: 'true'}}")
    rules = "[{to: [{operation: {methods: [PUT]}}]}, {to: [{operation: {methods: [GET]}}]}, {}]"
    audited = authorization(f"{{action: AUDIT, rules: {rules}}}", name="audited")
    words = (*policy(tmp_path, tried + audited), "--to", "apps/shop", "GET", "/")

    traced = [(rule["action"], rule["dry_run"], rule["outcome"]) for rule in explain.json(*words)["rules"]]
    assert traced == [
        ("AUDIT", False, "no match"),
        ("AUDIT", False, "match"),
        ("ALLOW", True, "no match"),
        ("ALLOW", True, "match"),
    ]
    assert "ALLOW (dry run) ns[apps]-policy[rule]-rule[1]" in explain(*words).out
    assert explain.json(*words)["nearest"] is None


def test_a_custom_policy_that_matches_is_where_it_ends(explain: Explain, tmp_path: Path) -> None:
    spec = "{action: CUSTOM, provider: {name: p}, rules: [{to: [{operation: {methods: [GET]}}]}]}"
    words = (*policy(tmp_path, authorization(spec)), "--to", "apps/shop")
    denied, allowed = explain.json(*words, "GET", "/"), explain.json(*words, "POST", "/")

    assert (denied["step"], denied["decision"], allowed["decision"]) == ("custom", "DENY", "ALLOW")


@pytest.mark.parametrize("token", [(), ("--claims", "{}"), ("--token", "x")])
def test_a_custom_rule_is_traced_field_by_field_whatever_ends_the_request(
    explain: Explain, tmp_path: Path, token: tuple[str, ...]
) -> None:
    rules = "{to: [{operation: {methods: [PUT]}}]}, {to: [{operation: {paths: [/a], methods: [GET]}}]}"
    text = authorization(f"{{action: CUSTOM, provider: {{name: p}}, rules: [{rules}]}}")
    users = request_authentication("{jwtRules: [{issuer: 'https://i.example', jwksUri: 'https://i.example/keys'}]}")
    words = (*policy(tmp_path, text + users), "--to", "apps/shop", *token, "GET")

    def traced(path: str) -> list[tuple[str, str, list[tuple[str, list[str], str, str]]]]:
        return [
            (
                rule["action"],
                rule["outcome"],
                [(field["field"], field["wanted"], field["got"], field["outcome"]) for field in rule["fields"]],
            )
            for rule in explain.json(*words, path)["rules"]
        ]

    first = ("CUSTOM", "no match", [("methods", ["PUT"], "GET", "no match")])
    methods = ("methods", ["GET"], "GET", "match")
    assert traced("/a") == [first, ("CUSTOM", "match", [("paths", ["/a"], "/a", "match"), methods])]
    assert traced("/b") == [first, ("CUSTOM", "no match", [("paths", ["/a"], "/b", "no match"), methods])]
    assert explain.json(*words, "/b")["step"] == ("token" if token else "policies")
    assert explain.json(*words, "/a")["policy"]["id"] == "ns[apps]-policy[rule]-rule[1]"


def test_a_waypoint_and_the_service_that_is_asked_for_are_said_as_the_route_says_them(
    explain: Explain, tmp_path: Path
) -> None:
    spec = "{targetRefs: [{group: '', kind: Service, name: books}], action: DENY, rules: [{}]}"
    waypoint = ("workload.gateway=way", "workload.gateway_class=istio-waypoint", "workload.services=Service/apps/books")
    words = (*policy(tmp_path, authorization(spec)), "--to", "infra/way", "GET", "/")
    context = [word for said in waypoint for word in ("--context", said)]

    denied, allowed = explain.json(*words, *context), explain.json(*words)
    assert (denied["reason"], allowed["decision"]) == ("deny-rule-matched", "ALLOW")
    assert denied["workload"]["gateway_class"] == "istio-waypoint"
    assert denied["workload"]["services"] == ["Service/apps/books"]
    assert "gateway way of class istio-waypoint, for Service/apps/books" in explain(*words, *context).out


def test_a_context_that_cannot_be_read_denies_as_it_would_when_served(explain: Explain) -> None:
    result = explain.json(*SLEEP, "GET", "/headers", "--context", "workload.services=books")

    assert (result["reason"], result["step"]) == ("workload-unknown", "workload")
    assert result["detail"].startswith("`workload.services` is not of the form")


def test_a_port_that_peer_authentication_asks_for_names_its_flag(explain: Explain, tmp_path: Path) -> None:
    spec = "{selector: {matchLabels: {app: shop}}, portLevelMtls: {'8080': {mode: PERMISSIVE}}}"
    words = (*policy(tmp_path, peer_authentication(spec)), "--to", "apps/shop", "GET", "/")

    assert "note: --port N says which port it is" in explain(*words).out
    assert explain(*words, "--port", "8080").code == 0


def test_a_server_name_that_is_not_said_is_unknown_on_tls_and_none_on_plaintext(
    explain: Explain, tmp_path: Path
) -> None:
    text = authorization("{action: DENY, rules: [{when: [{key: connection.sni, values: [shop.example]}]}]}")
    words, peer = (*policy(tmp_path, text), "--to", "apps/shop", "GET", "/"), SLEEP[:2]

    unknown = explain(*words, *peer)
    assert unknown.code == 1
    assert "not known, --sni says it" in unknown.out
    assert explain(*words).code == 0
    assert explain(*words, *peer, "--sni", "other.example").code == 0


# Connections

ENDS = ("--source-ip", "10.0.0.1", "--destination-ip", "10.0.0.2", "--port", "8080")


def test_a_tcp_connection_is_described_by_its_ends(explain: Explain, tmp_path: Path) -> None:
    http = "{to: [{operation: {ports: ['8080'], paths: [/a]}}]}"
    deny = authorization(f"{{action: DENY, rules: [{http}]}}", name="stop")
    allow = authorization(f"{{rules: [{http}, {{to: [{{operation: {{ports: ['8080']}}}}]}}]}}")
    words = ("--to", "apps/shop", "--tcp", *ENDS)

    denied, allowed = (explain.json(*policy(tmp_path, text), *words) for text in (deny + allow, allow))
    assert (denied["reason"], denied["response"]) == ("deny-rule-matched", None)
    assert denied["pipeline"][0]["found"] == "a TCP connection from 10.0.0.1 to 10.0.0.2:8080"
    assert [field["field"] for field in denied["rules"][0]["fields"]] == ["ports"]  # the path fell away
    assert allowed["policy"]["id"] == "ns[apps]-policy[rule]-rule[1]"
    assert [rule["id"] for rule in allowed["rules"]] == ["ns[apps]-policy[rule]-rule[1]"]
    assert "of other rules those fields, so that they match more" in allowed["notes"][0]
    text = explain(*policy(tmp_path, deny), *words).out
    assert "\n  the connection is closed\n" in text
    assert "a TCP connection has no token" in text
    assert "the client gets" not in text


def test_a_recorded_connection_is_explained_as_a_described_one(explain: Explain, tmp_path: Path) -> None:
    def end(address: str, port: int) -> dict[str, Any]:
        return {"address": {"socketAddress": {"address": address, "portValue": port}}}

    destination = {**end("10.0.0.2", 8080), "labels": {"app": "shop"}}
    recorded = {"attributes": {"source": end("10.0.0.1", 0), "destination": destination}}
    (tmp_path / "tcp.json").write_text(json.dumps(recorded))
    words = (*policy(tmp_path, authorization("{}")), "-o", "json")

    one = explain(*words, "--namespace", "apps", "--request", str(tmp_path / "tcp.json"))
    other = explain(*words, "--to", "apps/shop", "--tcp", *ENDS)
    assert one.out == other.out
    assert one.json["reason"] == "no-allow-rule-matched"


# Users


def test_given_claims_are_judged_and_said_to_be_unsigned(explain: Explain) -> None:
    result = explain.json(*GATEWAY, "GET", "/headers", *claims(), *AT)

    assert (result["decision"], result["user"]["signature"]) == ("ALLOW", "not checked")
    assert "no signature was checked" in result["notes"][0]
    assert result["changes"]["set_headers"] == [{"name": "x-user", "value": "alice"}]
    assert result["changes"]["remove_headers"] == ["authorization"]


@pytest.mark.parametrize(
    ("changes", "reason", "note"),
    [
        ({"iss": "https://other.example"}, "token-unknown-issuer", f"issuers that count here: {ISSUER}"),
        ({"aud": "shop"}, "token-wrong-audience", "audiences that count here: httpbin"),
        ({"exp": NOW - 61}, "token-expired", "no signature was checked"),
        ({"groups": ["guests"]}, "no-allow-rule-matched", "no signature was checked"),
    ],
)
def test_given_claims_are_refused_as_a_real_token_would_be(
    explain: Explain, changes: dict[str, Any], reason: str, note: str
) -> None:
    denied = explain.json(*GATEWAY, "GET", "/headers", *claims(**changes), *AT)
    allowed = explain.json(*GATEWAY, "GET", "/headers", *claims(), *AT)

    assert (denied["reason"], allowed["reason"]) == (reason, "allow-rule-matched")
    assert any(note in said for said in denied["notes"])


def test_claims_by_hand_need_no_expiry_but_a_token_does(explain: Explain) -> None:
    result = explain(*GATEWAY, "GET", "/headers", *claims(exp=None))

    assert result.code == 0
    assert "a real token without it is refused" in result.out


def test_claims_where_no_token_is_looked_at_are_no_user(explain: Explain) -> None:
    result = explain(*SLEEP[:2], "--to", "apps/other", "GET", "/", *claims(), *AT)

    assert result.code == 0
    assert "no RequestAuthentication applies, so no token is looked at" in result.out


def test_a_preflight_is_asked_for_no_token(explain: Explain) -> None:
    words = (*SLEEP, "OPTIONS", "/headers", *claims(), *AT, "--header", "origin: https://a", "--header")
    result = explain(*words, "access-control-request-method: GET")

    assert "a CORS preflight, which is asked for no token" in result.out


def test_a_token_is_verified_with_the_keys_that_are_given(explain: Explain, tmp_path: Path) -> None:
    words = (*GATEWAY, "GET", "/headers", "--token", sign(STAFF, algorithm="ES256"), *AT)
    good = explain.json(*words, *jwks(tmp_path))
    other = explain.json(*words, *jwks(tmp_path, which=1))

    assert (good["decision"], good["user"]["signature"], good["notes"]) == ("ALLOW", "verified", [])
    assert other["reason"] in {"token-bad-signature", "token-unknown-key"}


def test_without_keys_the_claims_are_taken_and_that_is_said(explain: Explain) -> None:
    words = (*GATEWAY, "GET", "/headers", *AT, "--token")
    result = explain(*words, sign(STAFF, algorithm="ES256", which=2))
    expired = explain(*words, sign({**STAFF, "exp": NOW - 100}, algorithm="ES256"))

    assert (result.code, expired.code) == (0, 1)
    assert "signature was NOT checked: explain fetches nothing; save http://issuer:8000/jwks.json" in result.out
    assert expired.out.startswith("DENY token-expired")


def test_keys_that_stand_in_the_policy_are_used(explain: Explain, tmp_path: Path) -> None:
    keys = json.dumps({"keys": [jwk("ES256")]})
    rule = f"{{jwtRules: [{{issuer: '{ISSUER}', jwks: '{keys}'}}]}}"
    words = (*policy(tmp_path, request_authentication(rule)), "--to", "apps/shop", "GET", "/", *AT, "--token")

    assert explain(*words, sign(STAFF, algorithm="ES256")).code == 0
    assert "DENY token-bad-signature" in explain(*words, sign(STAFF, algorithm="ES256")[:-8] + "AAAAAAAA").out


def test_a_token_may_come_from_a_file(explain: Explain, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(sign(STAFF, algorithm="ES256") + "\n")
    result = explain(*GATEWAY, "GET", "/headers", *AT, "--token", f"@{tmp_path}/token", *jwks(tmp_path))

    assert result.code == 0


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("place", ["flag", "header", "query", "broken query", "policy"])
def test_a_token_is_never_printed(explain: Explain, tmp_path: Path, form: str, place: str) -> None:
    secret = sign(STAFF, algorithm="ES256")
    words: tuple[str, ...] = (*GATEWAY, "-o", form, *AT)
    match place:
        case "flag":
            words = (*words, "GET", "/headers", "--token", secret)
        case "header":
            words = (*words, "GET", "/headers", "--header", f"authorization: Bearer {secret}")
        case "query":
            words = (*words, "GET", f"/headers?access_token={secret}")
        case "broken query":
            secret = "b" + secret.replace("e", "f")
            words = (*words, "GET", f"/headers?access_token={secret}")
        case _:
            spec = "{rules: [{when: [{key: 'request.headers[authorization]', values: [x]}]}]}"
            words = (*words, *policy(tmp_path, authorization(spec)), "GET", "/x", "--token", secret)
    result = explain(*words)

    assert result.code in {0, 1}
    assert not any(part in result.out + result.err for part in secret.split("."))


# Recorded requests


def check(**http: Any) -> dict[str, Any]:
    return {
        "attributes": {
            "source": {"principal": "spiffe://cluster.local/ns/apps/sa/sleep"},
            "destination": {"principal": "spiffe://cluster.local/ns/apps/sa/httpbin", "labels": {"app": "httpbin"}},
            "request": {"http": {"method": "GET", "path": "/headers", "headers": {":path": "/headers"}, **http}},
        }
    }


def test_a_recorded_check_is_explained(explain: Explain, tmp_path: Path) -> None:
    file = tmp_path / "check.json"
    file.write_text(json.dumps(check()))
    result = explain.json("--request", str(file))

    assert result["reason"] == "allow-rule-matched"
    assert result["workload"]["labels"] == {"app": "httpbin"}


def test_one_line_of_many_is_picked_by_its_number(explain: Explain, tmp_path: Path) -> None:
    file = tmp_path / "checks.jsonl"
    file.write_text(json.dumps(check()) + "\n" + json.dumps(check(method="PUT")) + "\n")

    assert explain("--request", f"{file}:1").code == 0
    assert explain("--request", f"{file}:2").code == 1


def test_a_recorded_check_that_serving_would_refuse_is_refused(explain: Explain, tmp_path: Path) -> None:
    file = tmp_path / "check.json"
    file.write_text(json.dumps(check(headers={})))
    result = explain.json("--request", str(file))

    assert (result["reason"], result["step"]) == ("request-incomplete", "request")


def test_a_token_is_judged_at_the_time_of_the_recorded_check(explain: Explain, tmp_path: Path) -> None:
    recorded = check(headers={"authorization": f"Bearer {sign(STAFF, algorithm='ES256')}"})
    recorded["attributes"]["request"]["time"] = "2027-01-15T08:00:00Z"  # NOW
    file = tmp_path / "check.json"
    file.write_text(json.dumps(recorded))

    assert explain.json("--request", str(file))["user"]["subject"] == "alice"
    assert explain.json("--request", str(file), "--time", str(NOW + 1000))["reason"] == "token-expired"


# Mistakes


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "wants METHOD and PATH, such as GET /headers, or --request FILE"),
        (("GET",), "wants METHOD and PATH"),
        (("GET", "headers"), "`headers` is no path"),
        (("G ET", "/"), "`G ET` is no HTTP method"),
        (("GET", "/", "--as", "sleep"), "--as sleep: not of the form spiffe://"),
        (("GET", "/", "--as", "spiffe://cluster.local"), "a trust domain, not a workload"),
        (("GET", "/", "--as", "spiffe://a/b", "--plaintext"), "not allowed with argument --as"),
        (("GET", "/", "--to", "apps"), "--to apps: wants NS/APP"),
        (("GET", "/", "--to", "apps/shop", "--namespace", "other"), "--namespace or --label says something else"),
        (("GET", "/", "--context", "x"), "--context x: wants K=V, such as workload.services=Service/apps/shop"),
        (("GET", "/", "--context", "=x"), "--context =x: wants K=V"),
        (("GET", "/", "--context", "a=x", "--context", "a=y"), "--context a: given twice"),
        (("GET", "/", "--tcp", *ENDS), "METHOD PATH: --tcp is a connection without HTTP"),
        (("--tcp", "--claims", "{}", *ENDS), "--claims: --tcp is a connection without HTTP"),
        (("--tcp", "--header", "a: b", *ENDS), "--header: --tcp is a connection without HTTP"),
        (("--tcp",), "--tcp: say both ends, --source-ip and --destination-ip"),
        (("--tcp", "--request", "x"), "--tcp: --request says what the request is"),
        (("--context", "a=x", "--request", "x"), "--context: --request says what the request is"),
        (("GET", "/", "--header", "x"), "--header: wants 'NAME: VALUE'"),
        (("GET", "/", "--header", "Host: x"), "say --host"),
        (("GET", "/", "--header", "x: a\nb"), "--header x: a control character"),
        (("GET", "/", "--header", "authorization: x", "--token", "y"), "there is an authorization header already"),
        (("GET", "/", "--claims", "{,"), "--claims: not JSON, line 1, column 2: Expecting property name"),
        (("GET", "/", "--claims", '{"a": 1, "a": 2}'), "--claims: a name twice in one object"),
        (("GET", "/", "--claims", "[]"), "--claims: not a JSON object, such as {"),
        (("GET", "/", "--claims", '{"iss": 5}'), "--claims: Jwt payload [iss] field is not a string"),
        (("GET", "/", "--claims", "{}", "--token", "x"), "not allowed with argument --claims"),
        (("GET", "/", "--port", "0"), "`0` is no port"),
        (("GET", "/", "--source-ip", "1.2.3"), "`1.2.3` is no IP address"),
        (("GET", "/", "--time", "yesterday"), "`yesterday` is neither"),
        (("GET", "/", "--time", "2026-01-01T00:00:00"), "`2026-01-01T00:00:00` is neither"),
        (("GET", "/", "--trust-domain", "A"), "trust domain `A`"),
        (("GET", "/", "--request", "x"), "METHOD PATH: --request says what the request is"),
        (("--host", "x", "--request", "x"), "--host: --request says what the request is"),
    ],
)
def test_a_mistake_is_one_clear_line(explain: Explain, words: tuple[str, ...], message: str) -> None:
    result = explain(*words)

    assert (result.code, result.out) == (2, "")
    assert message in result.err
    assert len(result.err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "words",
    [
        (*SLEEP, "GET", "/", "--jwks", "nowhere.json"),
        (*SLEEP, "GET", "/", "--token", "@nowhere"),
        ("--request", "nowhere.json"),
        (*SLEEP, "GET", "/", "--policies", "nowhere"),
    ],
)
def test_a_file_that_is_not_there_exits_with_3(explain: Explain, words: tuple[str, ...]) -> None:
    result = explain(*words)

    assert (result.code, result.out) == (3, "")
    assert "nowhere" in result.err
    assert "[Errno" not in result.err


def test_broken_policies_are_named_as_serve_names_them_and_exit_with_2(explain: Explain, tmp_path: Path) -> None:
    broken = authorization("{rules: [{from: [{source: {principal: [x]}}]}]}")
    result = explain(*policy(tmp_path, broken), *SLEEP, "GET", "/")

    assert (result.code, result.out) == (2, "")
    assert "the policies cannot be used" in result.err
    assert "error[CS0003]: unknown field `principal` in `source`" in result.err


def test_no_policy_at_all_denies_everything(explain: Explain, tmp_path: Path) -> None:
    result = explain.json("--policies", str(tmp_path), *SLEEP, "GET", "/")

    assert (result["reason"], result["response"]["status"]) == ("no-policies-loaded", 503)


def test_keys_that_are_none_are_refused(explain: Explain, tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text("[]")
    result = explain(*SLEEP, "GET", "/headers", "--jwks", str(tmp_path / "keys.json"))

    assert (result.code, "keys.json: not an object" in result.err) == (2, True)


@pytest.mark.parametrize(("to", "said"), [("nowhere/shop", True), ("apps/shop", False), ("istio-system/shop", False)])
def test_a_workload_in_a_namespace_without_policies_is_told(explain: Explain, to: str, *, said: bool) -> None:
    note = "no policy is in its namespace; those that are loaded are in apps, istio-system"

    assert (note in explain.json("--to", to, "GET", "/")["notes"]) is said


# The mesh


def test_the_posture_is_the_one_of_serve(explain: Explain) -> None:
    assert explain(*SLEEP, "GET", "//headers").code == 1
    assert explain(*SLEEP, "GET", "/headers", "--posture", "istio").code == 0


@pytest.mark.parametrize("flags", [("--peer", "xfcc"), ("--peer", "xfcc", "--xfcc-trusted-hops", "1")])
def test_the_peer_is_read_where_serve_would_read_it(explain: Explain, flags: tuple[str, ...]) -> None:
    assert explain(*SLEEP, "GET", "/headers", *flags).code == 0
    other = explain(*SLEEP, "GET", "/headers", *flags, "--header", "x-forwarded-client-cert: URI=,URI=")
    assert other.out.startswith("DENY mtls-required")


# The terminal


def test_colour_is_for_a_terminal_only() -> None:
    assert Style(colour=True).paint("x", "31") == "\x1b[31mx\x1b[0m"
    assert Style().paint("x", "31") == "x"


def test_marks_are_ascii_where_nothing_else_can_be_shown() -> None:
    assert [Style(unicode=False).sign(outcome) for outcome in ("match", "no match", "unreadable")] == ["+", "x", "?"]


def test_a_client_cannot_write_to_the_terminal() -> None:
    assert printable("a\x1b[2Jb\u202e") == "a\\x1b[2Jb\\u202e"
    assert printable("caf\u00e9") == "caf\u00e9"


# The page


def sessions() -> list[tuple[str, str]]:
    text = (ROOT / "docs" / "explain.md").read_text(encoding="utf-8")
    found = []
    for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL):
        for command, output in re.findall(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE):
            found.append((command.replace("\\\n", " "), output))
    return found


@pytest.mark.parametrize(("command", "output"), sessions())
def test_the_page_shows_what_is_printed(command: str, output: str) -> None:
    words = shlex.split(command)
    assert words[0] == "countersign"
    environment = {**os.environ, "PYTHONUTF8": "1"}
    result = subprocess.run(
        [sys.executable, "-m", "countersign", *words[1:]],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
        check=False,
        cwd=ROOT,
        env=environment,
    )

    assert result.stdout + result.stderr == output
    assert POLICIES.is_dir()
