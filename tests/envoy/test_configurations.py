"""The committed Envoy configurations are valid, and as safe as requirement H31 wants them."""

import datetime as dt
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from countersign.edge.addresses import UnixAddress, of_worker
from countersign.mesh.certificates import TRUST_DOMAIN, WORKLOADS, write_certificates
from countersign.mesh.envoy import validate
from countersign.mesh.relocate import Places, relocate

ENVOY = Path(__file__).parents[2] / "envoy"
FILES = sorted(ENVOY.glob("*.yaml"))
SPIFFE_IDS = {workload.name: workload.spiffe_id for workload in WORKLOADS}

each_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


def _load(name: str) -> Any:
    return yaml.safe_load((ENVOY / f"{name}.yaml").read_text())


def _find(node: object, kind: str) -> Iterator[dict[str, Any]]:
    """Every typed configuration of a kind, anywhere in a document."""
    if isinstance(node, dict):
        if str(node.get("@type", "")).endswith(f".{kind}"):
            yield node
        for value in node.values():
            yield from _find(value, kind)
    elif isinstance(node, list):
        for element in node:
            yield from _find(element, kind)


def _keys(node: object) -> Iterator[str]:
    if isinstance(node, Mapping):
        yield from node
    for value in node.values() if isinstance(node, Mapping) else node if isinstance(node, list) else ():
        yield from _keys(value)


def test_the_mesh_has_a_client_a_server_and_an_edge_and_the_server_may_have_workers() -> None:
    assert [file.stem for file in FILES] == ["edge", "httpbin", "sleep", "workers"]


def test_the_sidecar_with_workers_differs_from_that_of_the_demo_where_it_says_so() -> None:
    with_workers, demo = _load("workers"), _load("httpbin")
    for chain in with_workers["static_resources"]["listeners"][0]["filter_chains"]:
        (filter_,) = _find(chain, "ExtAuthz")
        filter_["grpc_service"].pop("retry_policy", None)  # both chains have the same filter
    (cluster,) = (each for each in with_workers["static_resources"]["clusters"] if each["name"] == "countersign")
    added = ("health_checks", "outlier_detection", "common_lb_config", "circuit_breakers")
    for name in added:
        del cluster[name]
    (endpoints,) = cluster["load_assignment"]["endpoints"]
    paths = [each["endpoint"]["address"]["pipe"]["path"] for each in endpoints["lb_endpoints"]]
    del endpoints["lb_endpoints"][1:]
    endpoints["lb_endpoints"][0]["endpoint"]["address"]["pipe"]["path"] = "/run/countersign/authz.sock"

    assert paths == [str(of_worker(UnixAddress("/run/countersign/authz.sock"), n))[5:] for n in range(2)]
    assert with_workers == demo


@pytest.mark.envoy
@each_file
def test_envoy_accepts_the_committed_text_with_only_its_directories_moved(file: Path, tmp_path: Path) -> None:
    write_certificates(tmp_path, dt.datetime.now(dt.UTC))
    moved = tmp_path / file.name
    moved.write_text(file.read_text().replace("/run/mesh/certs", str(tmp_path)))

    assert validate(moved) == ""


@pytest.mark.envoy
@each_file
def test_envoy_accepts_the_relocated_configuration(file: Path, tmp_path: Path) -> None:
    write_certificates(tmp_path, dt.datetime.now(dt.UTC))
    names = ["127.0.0.1:9901", "0.0.0.0:15006", "0.0.0.0:15001", "0.0.0.0:8080", "upstream:8080", "httpbin:15006"]
    places = Places(
        addresses=dict.fromkeys(names, ("127.0.0.1", 0)),
        paths={"/run/mesh/certs": tmp_path, "/run/countersign": tmp_path},
    )
    moved = tmp_path / f"{file.stem}.json"
    moved.write_text(relocate(file.read_text(), places))

    assert validate(moved) == ""
    assert "/run/" not in moved.read_text()


@pytest.mark.envoy
def test_envoy_says_what_is_wrong_with_a_configuration(tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text(json.dumps({"static_resources": {"listners": []}}))

    assert "listners" in validate(broken)


@each_file
def test_every_connection_manager_reads_requests_in_one_way(file: Path) -> None:
    managers = list(_find(yaml.safe_load(file.read_text()), "HttpConnectionManager"))

    assert managers
    for manager in managers:
        assert manager["normalize_path"] is True
        assert manager["merge_slashes"] is True
        assert manager["path_with_escaped_slashes_action"] == "REJECT_REQUEST"
        assert manager["common_http_protocol_options"]["headers_with_underscores_action"] == "REJECT_REQUEST"
        assert manager["use_remote_address"] is True
        assert manager["max_request_headers_kb"] == 60


def test_both_filter_chains_ask_countersign_with_the_same_settings() -> None:
    (listener,) = _load("httpbin")["static_resources"]["listeners"]
    mtls, plaintext = listener["filter_chains"]

    assert mtls["filter_chain_match"] == {"transport_protocol": "tls"}
    assert plaintext["filter_chain_match"] == {"transport_protocol": "raw_buffer"}
    assert "transport_socket" not in plaintext
    assert mtls["filters"] == plaintext["filters"]
    assert "default_filter_chain" not in listener


@pytest.mark.parametrize("chain", [0, 1])
def test_the_ext_authz_filter_fails_closed_and_hides_nothing(chain: int) -> None:
    (listener,) = _load("httpbin")["static_resources"]["listeners"]
    (filter_,) = _find(listener["filter_chains"][chain], "ExtAuthz")

    assert filter_["failure_mode_allow"] is False
    assert filter_["status_on_error"] == {"code": "ServiceUnavailable"}
    assert filter_["validate_mutations"] is True
    assert filter_["encode_raw_headers"] is True
    assert filter_["clear_route_cache"] is False
    assert filter_["include_tls_session"] is True
    assert filter_["include_peer_certificate"] is True
    assert filter_["transport_api_version"] == "V3"
    assert filter_["bootstrap_metadata_labels_key"] == "labels"
    assert filter_["grpc_service"]["timeout"] == "0.25s"
    assert not {"filter_enabled", "filter_enabled_metadata", "shadow_mode", "failure_mode_allow_header_add"} & set(
        filter_
    )


def test_a_check_is_never_retried() -> None:
    document = _load("httpbin")

    assert not {"retry_policy", "retry_on"} & set(_keys(document))


@pytest.mark.parametrize("chain", [0, 1])
def test_nothing_runs_between_the_check_and_the_router(chain: int) -> None:
    (listener,) = _load("httpbin")["static_resources"]["listeners"]
    (manager,) = _find(listener["filter_chains"][chain], "HttpConnectionManager")

    assert [each["name"] for each in manager["http_filters"]] == [
        "envoy.filters.http.ext_authz",
        "envoy.filters.http.router",
    ]


def test_no_route_switches_the_check_off() -> None:
    for per_route in _find(_load("httpbin"), "ExtAuthzPerRoute"):
        assert per_route.keys() == {"@type", "check_settings"}
        assert per_route["check_settings"] == {"context_extensions": {"workload.namespace": "apps"}}
    assert set(_keys(_load("httpbin"))).isdisjoint({"disabled", "typed_filter_metadata"})


def test_the_server_sidecar_wants_a_certificate_of_the_mesh() -> None:
    (tls,) = _find(_load("httpbin"), "DownstreamTlsContext")
    validation = tls["common_tls_context"]["validation_context"]

    assert tls["require_client_certificate"] is True
    assert validation["trusted_ca"] == {"filename": "/run/mesh/certs/httpbin/ca.crt"}
    assert validation["match_typed_subject_alt_names"] == [
        {"san_type": "URI", "matcher": {"prefix": f"spiffe://{TRUST_DOMAIN}/"}}
    ]
    assert "trust_chain_verification" not in validation


@pytest.mark.parametrize("name", ["sleep", "edge"])
def test_a_client_speaks_to_httpbin_and_to_nobody_else(name: str) -> None:
    (tls,) = _find(_load(name), "UpstreamTlsContext")
    common = tls["common_tls_context"]
    validation = common["validation_context"]

    assert validation["match_typed_subject_alt_names"] == [
        {"san_type": "URI", "matcher": {"exact": SPIFFE_IDS["httpbin"]}}
    ]
    assert validation["trusted_ca"] == {"filename": f"/run/mesh/certs/{name}/ca.crt"}
    assert common["tls_certificates"] == [
        {
            "certificate_chain": {"filename": f"/run/mesh/certs/{name}/tls.crt"},
            "private_key": {"filename": f"/run/mesh/certs/{name}/tls.key"},
        }
    ]


@each_file
def test_only_the_server_sidecar_passes_client_certificates_on(file: Path) -> None:
    (manager, *_) = _find(yaml.safe_load(file.read_text()), "HttpConnectionManager")

    if file.stem in {"httpbin", "workers"}:
        assert manager["forward_client_cert_details"] == "APPEND_FORWARD"
        assert manager["set_current_client_cert_details"] == {"subject": True, "uri": True, "dns": True}
    else:
        assert manager["forward_client_cert_details"] == "SANITIZE"


@each_file
def test_the_admin_interface_is_on_loopback(file: Path) -> None:
    address = yaml.safe_load(file.read_text())["admin"]["address"]["socket_address"]

    assert address == {"address": "127.0.0.1", "port_value": 9901}


@each_file
def test_no_access_log_shows_a_query_or_an_authorization_header(file: Path) -> None:
    logs = list(_find(yaml.safe_load(file.read_text()), "StdoutAccessLog"))

    assert logs
    for log in logs:
        text = json.dumps(log).upper()
        assert not [word for word in ("AUTHORIZATION", "COOKIE", "REQ(:PATH)", "%PATH(WQ)", "%PATH%") if word in text]


def test_the_workload_is_what_the_policies_select() -> None:
    assert _load("httpbin")["node"]["metadata"]["labels"] == {"app": "httpbin"}
