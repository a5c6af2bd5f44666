"""`countersign envoy-config --check`: each danger is found where it stands, and nothing else."""

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest
import yaml
from countersign.core.identity import PeerSource, XfccMode
from countersign.core.posture import Posture
from countersign.policy.problems import Severity
from countersign.proxy.lint.codes import EnvoyCode
from countersign.proxy.lint.look import Expected, Seen, look

ROOT: Final = Path(__file__).parents[2]
GOOD: Final = (ROOT / "envoy" / "httpbin.yaml").read_text()
C: Final = EnvoyCode
PACKAGE: Final = "type.googleapis.com/envoy.extensions.filters.http"
FILTER: Final = "                  - name: envoy.filters.http.ext_authz\n"
ROUTER: Final = "                  - name: envoy.filters.http.router\n"


def _another(name: str, kind: str, **fields: object) -> str:
    typed = json.dumps({"@type": f"{PACKAGE}.{kind}", **fields})
    return f"                  - {{name: {name}, typed_config: {typed}}}\n"


INSIDE: Final = {"name": "inside", "typed_config": {"@type": f"{PACKAGE}.lua.v3.Lua"}}
TOLD: Final = (Path(__file__).parent / "told.txt").read_text()  # where each finding points, why, and what to write

VALIDATION: Final = GOOD[GOOD.index(" " * 16 + "validation_context:") : GOOD.index("          filters: &inbound")]

MANAGER: Final = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
ACTION: Final = {"@type": f"{MANAGER}.ForwardClientCertConfig", "forward_client_cert_details": "FORWARD_ONLY"}
MATCHER: Final = "forward_client_cert_matcher: " + json.dumps(
    {"on_no_match": {"action": {"name": "a", "typed_config": ACTION}}}
)
ROUTE: Final = "route: {cluster: application, timeout: 5s}"

# What is dangerous, and the only change that makes it so: before, after, and a piece of the line that is pointed at.
ERRORS: Final = [
    (C.FAILS_OPEN, "failure_mode_allow: false", "failure_mode_allow: true", "failure_mode_allow"),
    (C.FAILS_OPEN, "failure_mode_allow: false", "failureModeAllow: yes", "failureModeAllow"),
    (C.SWITCHED_OFF, "check_settings:\n", "disabled: true\n{}check_settings:\n".format(" " * 26), "disabled"),
    (C.SWITCHED_OFF, FILTER, FILTER.replace("ext_authz", "x") + " " * 20 + "disabled: true\n", "- match"),
    (C.SHADOW_ONLY, "clear_route_cache: false", "shadow_mode: true", "shadow_mode"),
    (
        C.ASKED_SOMETIMES,
        "clear_route_cache: false",
        "filter_enabled: {default_value: {numerator: 50}}",
        "filter_enabled",
    ),
    (
        C.ASKED_SOMETIMES,
        "clear_route_cache: false",
        "filter_enabled_metadata: {filter: a, path: [{key: b}], value: {present_match: true}}",
        "filter_enabled_metadata",
    ),
    (C.ROUTE_CLEARED, "clear_route_cache: false", "clear_route_cache: true", "clear_route_cache"),
    (C.HEADERS_WITHHELD, "clear_route_cache: false", "allowed_headers: {patterns: [{exact: a}]}", "allowed_headers"),
    (
        C.HEADERS_WITHHELD,
        "clear_route_cache: false",
        "disallowed_headers: {patterns: [{exact: a}]}",
        "disallowed_headers",
    ),
    (C.WRONG_PROTOCOL, "transport_api_version: V3", "transport_api_version: V2", "transport_api_version"),
    (C.WRONG_PROTOCOL, "clear_route_cache: false", "http_service: {server_uri: {uri: a}}", "http_service"),
    (C.WRONG_PROTOCOL, "explicit_http_config: {http2_protocol_options: {}}", "explicit_http_config: {}", "name: coun"),
    (
        C.PLAINTEXT_CALLOUT,
        "pipe: {path: /run/countersign/authz.sock}",
        "socket_address: {address: authz.example, port_value: 9191}",
        "authz.example",
    ),
    (C.HEADER_FORWARDED, "details: APPEND_FORWARD", "details: FORWARD_ONLY", "FORWARD_ONLY"),
    (C.HEADER_FORWARDED, "details: APPEND_FORWARD", "details: 4", "details: 4"),
    (
        C.HEADER_FORWARDED,
        "forward_client_cert_details: APPEND",
        f"{MATCHER}\n{' ' * 16}forward_client_cert_details: APPEND",
        "FORWARD_ONLY",
    ),
    (C.BEHIND_ROUTER, FILTER, _another("early", "router.v3.Router") + FILTER, "ext_authz"),
    (C.CHANGED_AFTERWARDS, ROUTER, _another("late", "lua.v3.Lua") + ROUTER, "late"),
    (C.CHANGED_AFTERWARDS, ROUTER, _another("late", "ext_proc.v3.ExternalProcessor") + ROUTER, "late"),
    (C.CHANGED_AFTERWARDS, ROUTER, _another("late", "header_mutation.v3.HeaderMutation") + ROUTER, "late"),
    (
        C.CHANGED_AFTERWARDS,
        ROUTER,
        _another("late", "jwt_authn.v3.JwtAuthentication", providers={"a": {"clear_route_cache": True}}) + ROUTER,
        "late",
    ),
    (
        C.CHANGED_AFTERWARDS,
        ROUTER,
        _another("late", "composite.v3.Composite", named_filter_chains={"a": INSIDE}) + ROUTER,
        "late",
    ),
    (
        C.CHANGED_AFTERWARDS,
        "explicit_http_config: {http2_protocol_options: {}}",
        f"explicit_http_config: {{http2_protocol_options: {{}}}}\n{' ' * 10}http_filters: [{json.dumps(INSIDE)}]",
        "http_filters",
    ),
    (
        C.UPGRADE_UNASKED,
        "normalize_path: true",
        f"normalize_path: true\n{' ' * 16}upgrade_configs: [{{upgrade_type: a, filters: [{{name: b}}]}}]",
        "upgrade_configs",
    ),
    (
        C.MUTATIONS_REFUSED,
        "clear_route_cache: false",
        "decoder_header_mutation_rules: {disallow_all: true}",
        "decoder_header",
    ),
    (C.ANSWERED_BEFORE, FILTER, _another("early", "cache.v3.CacheConfig") + FILTER, "early"),
    (
        C.CERTIFICATE_UNVERIFIED,
        "trusted_ca: {filename: /run/mesh/certs/httpbin/ca.crt}",
        "trusted_ca: {filename: a}\n" + " " * 18 + "trust_chain_verification: ACCEPT_UNTRUSTED",
        "ACCEPT_UNTRUSTED",
    ),
    (C.WORKLOAD_UNREADABLE, "{workload.namespace: apps}", "{workload.namespaces: apps}", "workload.namespaces"),
]
WARNINGS: Final = [
    (C.TIMEOUT, "timeout: 0.25s", "initial_metadata: []", "envoy_grpc"),
    (C.TIMEOUT, "timeout: 0.25s", "timeout: 600s", "600s"),
    (C.TIMEOUT, "timeout: 0.25s", "timeout: 0s", "0s"),
    (C.TIMEOUT, "timeout: 0.25s", "timeout: 0.1s", "0.1s"),
    (C.STATUS_ON_ERROR, "status_on_error: {code: ServiceUnavailable}", "stat_prefix: a", "@type"),
    (C.STATUS_ON_ERROR, "{code: ServiceUnavailable}", "{code: OK}", "code: OK"),
    (C.PATH_AS_SENT, "normalize_path: true", "normalize_path: false", "normalize_path"),
    (C.SLASHES_AS_SENT, "merge_slashes: true", "merge_slashes: false", "merge_slashes"),
    (C.ESCAPED_SLASHES, "action: REJECT_REQUEST", "action: KEEP_UNCHANGED", "KEEP"),
    (C.UNDERSCORES, "underscores_action: REJECT_REQUEST", "underscores_action: ALLOW", "ALLOW"),
    (C.HEADERS_JOINED, "encode_raw_headers: true", "encode_raw_headers: false", "encode_raw"),
    (C.CERTIFICATE_NOT_REQUIRED, VALIDATION, "", "require_client_certificate: true"),
    (C.CERTIFICATE_WITHHELD, "include_peer_certificate: true", "include_peer_certificate: false", "include_peer"),
    (C.SERVER_NAME_WITHHELD, "include_tls_session: true", "include_tls_session: false", "include_tls"),
    (C.MUTATIONS_UNCHECKED, "validate_mutations: true", "validate_mutations: false", "validate_m"),
    (
        C.PORT_STRIPPED,
        "normalize_path: true",
        "normalize_path: true\n                strip_any_host_port: true",
        "strip",
    ),
    (
        C.ADDRESS_WRITTEN,
        "normalize_path: true",
        "normalize_path: true\n                skip_xff_append: true",
        "skip_xff_append",
    ),
    (C.ADMIN_OPEN, "127.0.0.1, port_value: 9901", "10.0.0.7, port_value: 9901", "10.0.0.7"),
    (C.CHANGED_AFTERWARDS, ROUTE, "route: {cluster: a, path_rewrite: '/%REQ(a)%'}", "path_rewrite"),
    (C.CHANGED_AFTERWARDS, ROUTE, "route: {cluster: a, host_rewrite: '%QUERY_PARAM(a)%'}", "host_rewrite"),
    (C.CHANGED_AFTERWARDS, ROUTE, "route: {cluster: a, host_rewrite_header: b}", "host_rewrite_header"),
    (C.CHANGED_AFTERWARDS, ROUTE, "route: {cluster_header: a}", "cluster_header"),
    (C.CHANGED_AFTERWARDS, ROUTE, "route: {weighted_clusters: {clusters: [{cluster_header: b}]}}", "cluster_header"),
    (
        C.CHANGED_AFTERWARDS,
        ROUTE,
        "{}\n{}request_headers_to_add: [{{header: {{key: b, value: '%REQ(a?:path)%'}}}}]".format(ROUTE, " " * 26),
        "request_headers_to_add",
    ),
    (C.BODY_SENT, "clear_route_cache: false", "with_request_body: {max_request_bytes: 9}", "with_request_body"),
    (C.JUDGED_BEFORE, FILTER, _another("early", "rbac.v3.RBAC", rules={"policies": {}}) + FILTER, "early"),
    (C.CHANGED_AFTERWARDS, ROUTER, _another("late", "jwt_authn.v3.JwtAuthentication") + ROUTER, "late"),
    (C.HEADER_UNFIT, "{subject: true, uri: true, dns: true}", "{subject: true}", "set_current"),
    (
        C.ASKED_SOMETIMES,
        "clear_route_cache: false",
        "filter_enabled_metadata: {filter: envoy.filters.http.rbac}",
        "filter_enabled_metadata",
    ),
    (
        C.OTHER_AUTHORIZER,
        "check_settings:\n",
        "check_settings:\n{}grpc_service: {{envoy_grpc: {{cluster_name: b}}}}\n".format(" " * 28),
        "cluster_name: b",
    ),
]

OPTIONAL: Final = [(C.CERTIFICATE_NOT_REQUIRED, "warning")]


def _look(text: str, expected: Expected | None = None) -> Seen:
    return look(text.encode(), "envoy.yaml", expected or Expected())


def _codes(text: str, expected: Expected | None = None) -> list[tuple[str, str]]:
    return [(str(each.code), str(each.severity)) for each in _look(text, expected).problems]


def _changed(before: str, after: str) -> str:
    index = GOOD.index("underscores_action") - 20 if after.startswith("underscores") else 0
    assert before in GOOD[index:]
    return GOOD[:index] + GOOD[index:].replace(before, after, 1)


@pytest.mark.parametrize("file", sorted((ROOT / "envoy").glob("*.yaml")), ids=lambda file: file.stem)
def test_our_own_configurations_are_fine_and_those_that_ask_nobody_say_so(file: Path) -> None:
    text = file.read_text()

    assert _codes(text) == ([] if "ext_authz" in text else [(C.NOBODY_ASKED, "error")])
    assert ("EC0005" in text) is ("ext_authz" not in text)


@pytest.mark.parametrize(
    ("severity", "code", "before", "after", "line"),
    [("error", *row) for row in ERRORS] + [("warning", *row) for row in WARNINGS],
)
def test_one_dangerous_setting_is_one_finding_where_it_stands(
    severity: str, code: EnvoyCode, before: str, after: str, line: str
) -> None:
    text = _changed(before, after)
    (problem,) = _look(text).problems

    assert (problem.code, problem.severity) == (code, severity)
    pointed = text.splitlines()[problem.position.line - 1]
    assert line in pointed
    assert problem.position.file == "envoy.yaml"
    assert (
        f"{code} {severity} at {pointed[problem.position.column - 1 :]}\n  {problem.message}\n  {problem.help}\n"
        in TOLD
    )


def test_everything_that_is_written_down_is_told() -> None:
    texts = [_changed(before, after) for _, before, after, _ in (*ERRORS, *WARNINGS)]
    said = {f"  {each.message}\n  {each.help}" for text in texts for each in _look(text).problems}

    assert {block.partition("\n")[2] for block in TOLD.rstrip("\n").split("\n\n")} == said


def test_every_code_is_tried() -> None:
    others = {C.NOBODY_ASKED, C.NOT_ASKED_HERE}

    assert {row[0] for row in (*ERRORS, *WARNINGS)} | others == set(EnvoyCode)


def test_a_connection_manager_without_the_check_is_told_unless_requests_leave_by_it() -> None:
    document, other = yaml.safe_load(GOOD), yaml.safe_load((ROOT / "envoy" / "sleep.yaml").read_text())
    (listener,) = other["static_resources"]["listeners"]
    document["static_resources"]["listeners"].append(listener)

    assert _codes(json.dumps(document)) == [(C.NOT_ASKED_HERE, "warning")]
    listener["traffic_direction"] = "OUTBOUND"
    assert _codes(json.dumps(document)) == []


def test_how_paths_are_read_is_an_error_where_countersign_reads_as_envoy_does() -> None:
    text = _changed("normalize_path: true", "normalize_path: false")

    assert _codes(text, Expected(posture=Posture.ISTIO)) == [(C.PATH_AS_SENT, "error")]
    assert _codes(text, Expected(posture=Posture.STRICT)) == [(C.PATH_AS_SENT, "warning")]


def test_the_header_about_the_peer_is_held_against_what_serve_is_told() -> None:
    sanitize = _changed("details: APPEND_FORWARD", "details: SANITIZE")
    xfcc = Expected(peer=PeerSource.XFCC)

    assert _codes(GOOD, xfcc) == []
    assert _codes(sanitize, xfcc) == [(C.HEADER_UNFIT, "error")]
    assert _codes(sanitize) == []
    assert _codes(GOOD, Expected(xfcc_mode=XfccMode.SANITIZE_SET)) == [(C.HEADER_UNFIT, "error")]
    assert _codes(_changed("APPEND_FORWARD", "SANITIZE_SET"), Expected(xfcc_mode=XfccMode.SANITIZE_SET)) == []
    assert _codes(_changed("uri: true", "uri: false"), Expected(peer=PeerSource.PRINCIPAL)) == []


@pytest.mark.parametrize(
    ("field", "codes"),
    [
        ("path_with_escaped_slashes_action", [C.ESCAPED_SLASHES, C.ESCAPED_SLASHES, None, None, None]),
        ("headers_with_underscores_action", [C.UNDERSCORES, None, None]),
        ("forward_client_cert_details", [C.HEADER_UNFIT, C.HEADER_FORWARDED, None, None, C.HEADER_FORWARDED]),
    ],
)
def test_an_enum_may_be_written_as_a_number(field: str, codes: list[EnvoyCode | None]) -> None:
    (line,) = (each for each in GOOD.splitlines() if each.strip().startswith(f"{field}:"))
    for number, code in enumerate(codes):
        text = GOOD.replace(line, f"{line.partition(':')[0]}: {number}")
        xfcc = Expected(peer=PeerSource.XFCC)

        assert [found for found, _ in _codes(text, xfcc)] == ([code] if code else [])


@pytest.mark.parametrize(
    "setting",
    [
        "verify_certificate_hash: [a]",
        "verify_certificate_spki: [a]",
        "match_typed_subject_alt_names: [{san_type: URI, matcher: {exact: a}}]",
        "match_subject_alt_names: [{exact: a}]",
        "custom_validator_config: {name: a}",
        "trusted_ca: {filename: a}",
    ],
)
def test_what_a_certificate_is_held_against_makes_envoy_want_one(setting: str) -> None:
    optional = GOOD.replace("require_client_certificate: true", "require_client_certificate: false")
    for text, enough in ((GOOD, True), (optional, not setting.startswith("trusted_ca"))):
        name = setting.partition(":")[0]
        one = text.replace(VALIDATION, " " * 16 + f"validation_context: {{{setting}}}\n")
        none = text.replace(VALIDATION, " " * 16 + f"validation_context: {{{name}: []}}\n")

        assert _codes(one) == ([] if enough else OPTIONAL)
        if name.startswith(("verify", "match")):
            assert _codes(none) == OPTIONAL


def _with_route_setting(settings: Mapping[str, object], name: str = "envoy.filters.http.ext_authz") -> str:
    document = yaml.safe_load(GOOD)
    chain = document["static_resources"]["listeners"][0]["filter_chains"][0]
    (route,) = chain["filters"][0]["typed_config"]["route_config"]["virtual_hosts"][0]["routes"]
    route["typed_per_filter_config"] = {name: settings}
    return json.dumps(document)


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_route_switches_the_check_off_in_two_ways_and_no_other_filter_counts(wrapped: bool) -> None:
    per_route = {"@type": f"{PACKAGE}.ext_authz.v3.ExtAuthzPerRoute", "disabled": True}
    found = [(C.SWITCHED_OFF, "error")]
    off = {**OFF, "disabled": False, "config": per_route} if wrapped else OFF

    assert set(_codes(_with_route_setting(off))) == set(found)
    assert _codes(_with_route_setting({**OFF, "disabled": False})) == []
    assert _codes(_with_route_setting(OFF, "envoy.filters.http.cors")) == []
    assert set(_codes(_with_route_setting(per_route))) == set(found)
    assert _codes(_with_route_setting({**per_route, "disabled": False})) == []


@pytest.mark.parametrize(
    ("name", "code"), [("failure_mode_allow", C.FAILS_OPEN), ("shadow_mode", C.SHADOW_ONLY), ("stat_prefix", None)]
)
def test_a_filter_of_tcp_is_looked_at_too(name: str, code: EnvoyCode | None) -> None:
    config = {"@type": "type.googleapis.com/envoy.extensions.filters.network.ext_authz.v3.ExtAuthz", name: "true"}
    config["grpc_service"] = {"envoy_grpc": {"cluster_name": "asked"}}  # type: ignore[assignment]
    chain = {"filters": [{"name": "check", "typed_config": config}]}
    cluster = {"name": "asked", "load_assignment": {"endpoints": []}}
    document = {"listeners": [{"name": "a", "filter_chains": [chain]}], "clusters": [cluster]}
    wrong = [code] if code is not None else []

    assert sorted(found for found, _ in _codes(json.dumps(document))) == [*wrong, C.WRONG_PROTOCOL]
    cluster["http2_protocol_options"] = {}
    assert [found for found, _ in _codes(json.dumps(document))] == wrong


@pytest.mark.parametrize(
    ("enabled", "found"),
    [
        ("{default_value: {numerator: 100}}", []),
        ("{default_value: {numerator: 100, denominator: HUNDRED}}", []),
        ("{default_value: {numerator: 100, denominator: TEN_THOUSAND}}", [(C.ASKED_SOMETIMES, "error")]),
        ("{default_value: {numerator: 100}, runtime_key: a}", [(C.ASKED_SOMETIMES, "error")]),
        ("{runtime_key: a}", [(C.ASKED_SOMETIMES, "error")]),
    ],
)
def test_a_filter_for_all_requests_is_one_that_nothing_can_change(enabled: str, found: list[tuple[str, str]]) -> None:
    assert _codes(_changed("clear_route_cache: false", f"filter_enabled: {enabled}")) == found


def test_a_check_inside_another_filter_is_made_when_that_one_likes() -> None:
    document = yaml.safe_load(GOOD)
    filters = document["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    kind = "type.googleapis.com/envoy.extensions.filters.http.composite.v3.Composite"
    filters["http_filters"][0]["typed_config"] = {"@type": kind, "inside": filters["http_filters"][0]["typed_config"]}

    assert set(_codes(json.dumps(document))) == {(C.ASKED_SOMETIMES, "error")}


def test_where_a_client_is_redirected_to_is_no_matter_of_what_was_judged() -> None:
    assert _codes(_changed(ROUTE, "redirect: {path_rewrite: '/%REQ(a)%'}")) == []


def test_a_filter_in_go_after_the_check_can_change_what_was_judged() -> None:
    late = _another("late", "golang.v3alpha.Config")

    assert _codes(_changed(ROUTER, late + ROUTER)) == [(C.CHANGED_AFTERWARDS, "error")]
    assert _codes(_changed(FILTER, late + FILTER)) == []


def test_a_header_that_names_nobody_is_an_error_where_nothing_else_is_read() -> None:
    xfcc = Expected(peer=PeerSource.XFCC)
    absent = _changed("                forward_client_cert_details: APPEND_FORWARD\n", "")

    assert _codes(_changed("uri: true", "uri: false"), xfcc) == [(C.HEADER_UNFIT, "error")]
    assert _codes(_changed("uri: true", "uri: false")) == [(C.HEADER_UNFIT, "warning")]
    (problem,) = _look(absent, xfcc).problems
    assert problem.code == C.HEADER_UNFIT
    assert "@type" in problem.snippet  # where it would stand


def test_why_a_certificate_is_optional_is_said() -> None:
    text = GOOD.replace("require_client_certificate: true", "require_client_certificate: false")
    (problem,) = _look(
        text.replace(VALIDATION, " " * 16 + "validation_context: {trusted_ca: {filename: a}}\n")
    ).problems

    assert (
        problem.message == "clients without a certificate are let in: they have no identity, and policies must say so"
    )
    assert problem.help == "require_client_certificate: true"


def test_a_filter_that_denies_what_it_does_not_check_is_fine() -> None:
    sometimes = "filter_enabled: {default_value: {numerator: 0}}"
    denying = f"{sometimes}\n{' ' * 22}deny_at_disable: {{default_value: true}}"

    assert _codes(_changed("clear_route_cache: false", sometimes)) == [(C.ASKED_SOMETIMES, "error")]
    assert _codes(_changed("clear_route_cache: false", denying)) == []


def test_an_upgrade_is_fine_with_the_managers_filters_or_with_a_check_among_its_own() -> None:
    document = yaml.safe_load(GOOD)
    manager = document["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    manager["upgrade_configs"] = [{"upgrade_type": "websocket"}]
    assert _codes(json.dumps(document)) == []
    manager["upgrade_configs"][0]["filters"] = json.loads(json.dumps(manager["http_filters"]))
    assert _codes(json.dumps(document)) == []

    check = manager["upgrade_configs"][0]["filters"][0]
    check["typed_config"]["failure_mode_allow"] = True
    assert set(_codes(json.dumps(document))) == {(C.FAILS_OPEN, "error")}
    check["typed_config"]["failure_mode_allow"] = False
    late = {"name": "late", "typed_config": {"@type": f"{PACKAGE}.lua.v3.Lua"}}
    manager["upgrade_configs"][0]["filters"].insert(1, late)
    assert set(_codes(json.dumps(document))) == {(C.CHANGED_AFTERWARDS, "error")}
    manager["upgrade_configs"][0]["filters"][:2] = [{**check, "name": "off", "disabled": True}]
    assert set(_codes(json.dumps(document))) == {(C.SWITCHED_OFF, "error")}


def test_rules_for_what_countersign_may_write_are_fine_where_a_breach_is_an_error() -> None:
    rules = "decoder_header_mutation_rules: {disallow_all: true, disallow_is_error: true}"

    assert _codes(_changed("clear_route_cache: false", rules)) == []


def test_what_is_unchecked_is_denied_only_if_no_runtime_key_can_say_otherwise() -> None:
    sometimes = (
        f"filter_enabled: {{default_value: {{numerator: 1}}}}\n{' ' * 22}deny_at_disable: {{default_value: true%s}}"
    )

    assert _codes(_changed("clear_route_cache: false", sometimes % "")) == []
    assert _codes(_changed("clear_route_cache: false", sometimes % ", runtime_key: a")) == [
        (C.ASKED_SOMETIMES, "error")
    ]


def test_loopback_and_mtls_to_countersign_are_fine() -> None:
    pipe = "pipe: {path: /run/countersign/authz.sock}"

    assert _codes(_changed(pipe, "socket_address: {address: 127.0.0.1, port_value: 9191}")) == []
    document = yaml.safe_load(_changed(pipe, "socket_address: {address: authz.example, port_value: 9191}"))
    document["static_resources"]["clusters"][1]["transport_socket"] = {"name": "envoy.transport_sockets.tls"}
    assert _codes(json.dumps(document)) == []


def test_a_dump_of_the_running_configuration_is_read_once() -> None:
    document = yaml.safe_load(_changed("failure_mode_allow: false", "failure_mode_allow: true"))
    listeners = [{"listener": each} for each in document["static_resources"]["listeners"]]
    kinds = "type.googleapis.com/envoy.admin.v3."
    dump = {
        "configs": [
            {"@type": f"{kinds}BootstrapConfigDump", "bootstrap": document},
            {"@type": f"{kinds}ListenersConfigDump", "static_listeners": listeners},
        ]
    }

    # Two filter chains have it, and what stood there once as an alias stands there twice.
    assert _codes(json.dumps(dump, indent="\t")) == [(C.FAILS_OPEN, "error")] * 2
    draining = {"name": "a", "draining_state": {"listener": document["static_resources"]["listeners"][0]}}
    dump["configs"][1]["dynamic_listeners"] = [draining]
    assert len(_codes(json.dumps(dump))) == 2


ASKED_BY_ROUTE: Final = f"""\
name: edge
http_filters:
  - name: check
    disabled: true
    typed_config:
      "@type": {PACKAGE}.ext_authz.v3.ExtAuthz
      transport_api_version: V3
      grpc_service: {{envoy_grpc: {{cluster_name: a}}, timeout: 0.25s}}
      status_on_error: {{code: ServiceUnavailable}}
      encode_raw_headers: true
      include_peer_certificate: true
      include_tls_session: true
      validate_mutations: true
normalize_path: true
merge_slashes: true
path_with_escaped_slashes_action: REJECT_REQUEST
common_http_protocol_options: {{headers_with_underscores_action: REJECT_REQUEST}}
"""


def _by_route(**layers: Mapping[str, object]) -> str:
    """A filter that is off, and what a route, its virtual host and its configuration say of it."""
    settings = {layer: {"typed_per_filter_config": {"check": config}} for layer, config in layers.items()}
    route = {"match": {"prefix": "/"}, "route": {"cluster": "b"}, **settings.get("route", {})}
    host = {"name": "b", "domains": ["*"], "routes": [route], **settings.get("host", {})}
    configuration = {"name": "all", "virtual_hosts": [host], **settings.get("configuration", {})}
    kind = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    manager = {"@type": kind, **yaml.safe_load(ASKED_BY_ROUTE), "rds": {"route_config_name": "all"}}
    chain = {"filters": [{"name": "manager", "typed_config": manager}]}
    dumps = [{"listener": {"name": "a", "filter_chains": [chain]}}], [{"route_config": configuration}]
    names = "type.googleapis.com/envoy.admin.v3."
    return json.dumps(
        {
            "configs": [
                {"@type": f"{names}ListenersConfigDump", "static_listeners": dumps[0]},
                {"@type": f"{names}RoutesConfigDump", "dynamic_route_configs": dumps[1]},
            ]
        }
    )


ON: Final[Mapping[str, object]] = {"@type": f"{PACKAGE}.ext_authz.v3.ExtAuthzPerRoute", "check_settings": {}}
OFF: Final[Mapping[str, object]] = {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": True}


@pytest.mark.parametrize("layer", ["route", "host", "configuration"])
def test_a_filter_that_is_off_is_fine_where_each_route_switches_it_on(layer: str) -> None:
    """As Envoy Gateway writes it."""
    assert _codes(_by_route(**{layer: ON})) == []


@pytest.mark.parametrize("layers", [{}, {"route": OFF, "host": ON}, {"host": OFF, "configuration": ON}])
def test_a_route_that_leaves_the_filter_off_is_an_error(layers: dict[str, Mapping[str, object]]) -> None:
    assert _codes(_by_route(**layers)) == [(C.SWITCHED_OFF, "error")]


def test_a_filter_that_is_off_is_an_error_where_its_routes_are_not_in_the_file() -> None:
    dump = _by_route(route=ON).replace('"name": "all"', '"name": "others"')

    assert _codes(dump) == [(C.SWITCHED_OFF, "error")]


@pytest.mark.parametrize(("address", "findings"), [("127.0.0.1", []), ("10.0.0.7", [(C.PLAINTEXT_CALLOUT, "error")])])
def test_plaintext_to_endpoints_that_a_management_server_sent_is_found(
    address: str, findings: list[tuple[str, str]]
) -> None:
    document = yaml.safe_load(GOOD)
    cluster = document["static_resources"]["clusters"][1]
    del cluster["load_assignment"]
    cluster |= {"type": "EDS", "eds_cluster_config": {"service_name": "endpoints"}}
    endpoint = {"endpoint": {"address": {"socket_address": {"address": address, "port_value": 9191}}}}
    assignment = {
        "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": "endpoints",
        "endpoints": [{"lb_endpoints": [endpoint]}],
    }
    document["more"] = [assignment]

    assert _codes(json.dumps(document)) == findings


def test_routes_from_a_management_server_are_said_to_be_unseen() -> None:
    document = yaml.safe_load(GOOD)
    manager = document["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    manager["rds"] = {"route_config_name": "a"}

    assert "management server" in _look(json.dumps(document)).notes[0]
    assert _look(GOOD).notes == ()


def test_a_filter_from_a_management_server_is_said_to_be_unseen_though_it_has_a_default() -> None:
    document = yaml.safe_load(GOOD)
    filters = document["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    check = filters["http_filters"][0]
    check["config_discovery"] = {"default_config": check.pop("typed_config"), "type_urls": ["a"]}
    (note,) = _look(json.dumps(document)).notes
    assert "management server" in note
    assert _codes(json.dumps(document)) == []

    given = {"name": check["name"], "typed_config": check["config_discovery"]["default_config"]}
    document["more"] = [{"@type": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig", **given}]
    assert _look(json.dumps(document)).notes == ()


@pytest.mark.parametrize(
    "text", ["", "[", "{", "a: [1, 2", "- a", "x", "a: 1\na: 2", "{}\n---\n{}", "\x00", "a: *b", "{" * 90, "!!binary a"]
)
def test_what_is_no_configuration_is_an_error_and_no_traceback(text: str) -> None:
    assert any(problem.severity is Severity.ERROR for problem in _look(text).problems)


def test_bytes_that_are_no_text_and_files_without_end_are_errors() -> None:
    assert look(b"\xff\xfe", "a", Expected()).problems
    assert look(b" " * (10 * 1024 * 1024 + 1), "a", Expected()).problems


@pytest.mark.parametrize("seed", range(60))
def test_no_damage_to_a_file_ends_in_a_traceback(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 (damage, not secrets)
    lines = GOOD.splitlines()
    for _ in range(chance.randrange(1, 12)):
        index = chance.randrange(len(lines))
        match chance.randrange(4):
            case 0:
                del lines[index]
            case 1:
                lines[index] = (
                    lines[index].partition(":")[0] + ": " + chance.choice(["[]", "{}", "3", "~", "[[a]]", "&b"])
                )
            case 2:
                lines[index] = lines[chance.randrange(len(lines))]
            case _:
                lines[index] = lines[index][: chance.randrange(len(lines[index]) + 1)]

    _look("\n".join(lines))
