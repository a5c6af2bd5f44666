"""Istio's own programs read the manifests; istiod tells the real Envoy, and that one asks Countersign."""

import json
from pathlib import Path
from typing import Any, Final

import pytest
from countersign.mesh.client import Door, send
from countersign.mesh.upstream import upstream
from countersign.policy.problems import Severity
from countersign.proxy.lint.codes import EnvoyCode
from countersign.proxy.lint.look import Expected, look

from tests.cli.serving import free_port
from tests.deploy.asked import HOST, SPIFFE_ID, countersign
from tests.deploy.istiod import OBJECTS, istiod, mesh_config, proxy
from tests.deploy.node_agent import secrets
from tests.deploy.programs import MANIFESTS, needs, run
from tests.deploy.translated import walk
from tests.edge.tls.pki import client_of, times, write
from tests.support.certificates import issue

PROXY: Final = "spiffe://cluster.local/ns/apps/sa/httpbin"
POLICY: Final = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: sleep, namespace: apps}
spec:
  rules: [{from: [{source: {principals: [cluster.local/ns/apps/sa/sleep]}}]}]
"""
# What the provider has no field for, how Istio reads paths by default, and the CUSTOM policy, which in the manifests
# matches everything.
EXPECTED: Final = {
    EnvoyCode.ASKED_SOMETIMES,
    EnvoyCode.SLASHES_AS_SENT,
    EnvoyCode.ESCAPED_SLASHES,
    EnvoyCode.UNDERSCORES,
    EnvoyCode.HEADERS_JOINED,
    EnvoyCode.CERTIFICATE_WITHHELD,
    EnvoyCode.SERVER_NAME_WITHHELD,
    EnvoyCode.MUTATIONS_UNCHECKED,
}


@needs("istioctl")
@pytest.mark.parametrize("name", OBJECTS)
def test_istioctl_takes_the_object_and_would_find_a_field_that_is_none(name: str, tmp_path: Path) -> None:
    file = MANIFESTS / "istio" / name
    bad = tmp_path / name
    bad.write_text(file.read_text().replace("spec:\n", "spec:\n  slip: true\n"))

    assert run("istioctl", "validate", "-f", file).returncode == 0
    assert 'unknown field "slip"' in run("istioctl", "validate", "-f", bad).stderr


@needs("istioctl")
def test_istioctl_has_nothing_against_the_objects_together(tmp_path: Path) -> None:
    mesh = tmp_path / "mesh.yaml"
    mesh.write_text(mesh_config())
    files = [MANIFESTS / "istio" / name for name in OBJECTS]
    result = run(
        "istioctl", "analyze", "--use-kube=false", "--failure-threshold", "Info", "--meshConfigFile", mesh, *files
    )

    assert (result.returncode, "No validation issues found" in result.stderr + result.stdout) == (0, True)


@needs("pilot-discovery")
@pytest.mark.envoy
def test_the_envoy_of_the_mesh_lets_pass_what_countersign_allows_and_nothing_else(tmp_path: Path) -> None:
    with countersign(tmp_path, POLICY, PROXY) as asked, upstream("127.0.0.1", 0) as application:
        own = issue(PROXY, by=asked.authority, dns=["httpbin"], **times())
        for name in ("sleep", "other"):
            (tmp_path / name).mkdir()
            write(
                tmp_path / name,
                client_of(asked.authority, f"spiffe://cluster.local/ns/apps/sa/{name}"),
                asked.authority,
            )
        socket, inbound = tmp_path / "sds.sock", free_port()
        with (
            istiod(tmp_path, countersign=asked.port, inbound=inbound, application=application.port) as ads,
            secrets(socket, own, asked.authority),
            proxy(tmp_path, ads, socket) as envoy,
        ):
            sleep, other = (Door(name=n, port=inbound, certificates=tmp_path / n) for n in ("sleep", "other"))
            good, bad = (send(each, "GET", "/", ()) for each in (sleep, other))
            results = [asked.record(number) for number in (1, 2)]
            dump = envoy._ask("/config_dump?include_eds") or ""
            asked.serve.child.stop()
            outage = send(sleep, "GET", "/", ())

    assert (good.status, bad.status, outage.status) == (200, 403, 503)
    assert [each["result"]["reason"] for each in results] == ["allow-rule-matched", "no-allow-rule-matched"]
    assert bad.headers["x-countersign-decision-id"] == results[1]["decision_id"]
    assert [each["input"]["source"]["principal"].rpartition("/")[2] for each in results] == ["sleep", "other"]
    _the_filter_is_what_the_page_says(json.loads(dump))
    _the_callout_shows_the_proxy_and_takes_nobody_else(json.loads(dump))
    seen = look(dump.encode(), "dump.json", Expected())
    assert {each.code for each in seen.problems} == EXPECTED
    assert {each.severity for each in seen.problems} == {Severity.WARNING}


def _the_filter_is_what_the_page_says(dump: dict[str, Any]) -> None:
    filters = [node for node in walk(dump) if str(node.get("@type")).endswith("http.ext_authz.v3.ExtAuthz")]
    assert filters
    for each in filters:
        assert each["grpc_service"]["timeout"] == "0.500s"
        assert each["grpc_service"]["envoy_grpc"]["cluster_name"] == f"outbound|9191||{HOST}"
        assert each["status_on_error"] == {"code": "ServiceUnavailable"}
        assert not {"failure_mode_allow", "allowed_headers", "with_request_body", "clear_route_cache"} & set(each)


def _the_callout_shows_the_proxy_and_takes_nobody_else(dump: dict[str, Any]) -> None:
    (cluster,) = (
        node for node in walk(dump) if node.get("name") == f"outbound|9191||{HOST}" and "transport_socket" in node
    )
    tls = cluster["transport_socket"]["typed_config"]["common_tls_context"]
    context = tls["combined_validation_context"]
    (name,) = context["default_validation_context"]["match_subject_alt_names"]

    assert name == {"exact": SPIFFE_ID}
    assert context["validation_context_sds_secret_config"]["name"] == "ROOTCA"
    assert [each["name"] for each in tls["tls_certificate_sds_secret_configs"]] == ["default"]
