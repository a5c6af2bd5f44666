"""Envoy Gateway's own code reads the manifests, and the real Envoy asks Countersign as it was told to."""

from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from countersign.mesh.client import Door, send
from countersign.mesh.envoy import Envoy
from countersign.mesh.relocate import Places
from countersign.mesh.upstream import upstream
from countersign.policy.problems import Severity
from countersign.proxy.lint.codes import EnvoyCode
from countersign.proxy.lint.look import Expected, look

from tests.deploy.asked import countersign
from tests.deploy.programs import needs
from tests.deploy.translated import CLUSTER_IPS, GATEWAY, as_files, objects, resources, translate, walk
from tests.edge.tls.pki import client_of, key_pem

pytestmark = [pytest.mark.envoy, needs("egctl")]

CALLER: Final = "spiffe://cluster.local/ns/envoy-gateway-system/sa/envoy"
POLICY: Final = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: good, namespace: edge}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: public}]
  rules: [{when: [{key: "request.headers[authorization]", values: [Bearer good]}]}]
"""
# What a SecurityPolicy has no field for, and the listener of Envoy Gateway's own readiness.
EXPECTED: Final = {
    EnvoyCode.NOT_ASKED_HERE,
    EnvoyCode.HEADERS_JOINED,
    EnvoyCode.CERTIFICATE_WITHHELD,
    EnvoyCode.SERVER_NAME_WITHHELD,
    EnvoyCode.MUTATIONS_UNCHECKED,
}


def _translated(directory: Path) -> dict[str, Any]:
    found, error = translate(objects("certificate", "key", "authority"), directory)
    assert not error
    return found


def test_envoy_gateway_accepts_every_object_and_finds_whatever_it_names(tmp_path: Path) -> None:
    found = _translated(tmp_path)
    kinds = ("backendTLSPolicies", "securityPolicies")
    policies = [found["envoyProxyForGatewayClass"], *(each for kind in kinds for each in found[kind])]
    said = {
        (each["kind"], condition["type"]): condition["status"]
        for each in policies
        for ancestor in each["status"]["ancestors"]
        for condition in ancestor["conditions"]
    }

    assert said == {
        ("EnvoyProxy", "Accepted"): "True",
        ("BackendTLSPolicy", "Accepted"): "True",
        ("BackendTLSPolicy", "ResolvedRefs"): "True",
        ("SecurityPolicy", "Accepted"): "True",
    }


@pytest.mark.parametrize("kind", ["EnvoyProxy", "SecurityPolicy", "BackendTLSPolicy", "ReferenceGrant"])
def test_a_field_that_the_schema_does_not_have_would_be_found(kind: str, tmp_path: Path) -> None:
    """So every field of the manifests is one: `egctl` holds objects against the CRDs, unknown fields are errors."""
    those = objects("certificate", "key", "authority")
    (one,) = (each for each in those if each["kind"] == kind)
    one["spec"]["slip"] = True

    assert "spec.slip: Invalid value: value provided for unknown field" in translate(those, tmp_path)[1]


def test_without_the_grant_the_gateway_answers_and_does_not_pass(tmp_path: Path) -> None:
    """The grant is needed, and what is wrong closes: `failOpen: true` would let everything pass here."""
    those = [each for each in objects("certificate", "key", "authority") if each["kind"] != "ReferenceGrant"]
    found, _ = translate(those, tmp_path)
    (policy,) = found["securityPolicies"]
    (accepted,) = policy["status"]["ancestors"][0]["conditions"]
    (route,) = (r for c in resources(found["xds"][GATEWAY], "RouteConfiguration") for r in _routes(c))

    assert (accepted["status"], accepted["reason"]) == ("False", "Invalid")
    assert "not permitted by any ReferenceGrant" in accepted["message"]
    assert route["directResponse"]["status"] == 500


def test_the_filter_is_what_the_page_says_and_each_route_switches_it_on(tmp_path: Path) -> None:
    dump = _translated(tmp_path)["xds"][GATEWAY]
    (filter_,) = (node for node in walk(dump) if node.get("name", "").startswith("envoy.filters.http.ext_authz"))
    config = filter_["typedConfig"]
    routes = [route for each in resources(dump, "RouteConfiguration") for route in _routes(each)]

    assert filter_["disabled"]
    assert "failureModeAllow" not in config
    assert config["grpcService"]["timeout"] == "0.500s"
    assert config["statusOnError"] == {"code": "ServiceUnavailable"}
    assert config["transportApiVersion"] == "V3"
    assert not {"allowedHeaders", "clearRouteCache", "withRequestBody"} & set(config)
    assert [each["typedPerFilterConfig"][filter_["name"]]["checkSettings"] for each in routes] == [
        {"contextExtensions": {"workload.namespace": "edge", "workload.gateway": "public"}}
    ]


def test_the_lint_finds_only_what_a_security_policy_cannot_say(tmp_path: Path) -> None:
    dump = _translated(tmp_path)["xds"][GATEWAY]
    seen = look(yaml.safe_dump(dump).encode(), "dump.yaml", Expected())

    assert {each.code for each in seen.problems} == EXPECTED
    assert {each.severity for each in seen.problems} == {Severity.WARNING}


def test_the_real_envoy_lets_pass_what_countersign_allows_and_nothing_else(tmp_path: Path) -> None:
    with countersign(tmp_path, POLICY, CALLER) as asked, upstream("127.0.0.1", 0) as application:
        own = client_of(asked.authority, CALLER)
        pair, ca = (own.pem, key_pem(own).decode()), asked.authority.pem
        found, error = translate(objects(*pair, ca), tmp_path)
        assert not error
        places = {
            f"{CLUSTER_IPS['countersign']}:9191": asked.port,
            f"{CLUSTER_IPS['httpbin']}:8000": application.port,
            "0.0.0.0:8080": 0,
            "0.0.0.0:19003": 0,
        }
        bootstrap = as_files(found["xds"][GATEWAY], _secrets(*pair, ca), places, tmp_path)
        here = Places(addresses={"127.0.0.1:0": ("127.0.0.1", 0)}, paths={str(tmp_path): tmp_path})
        with Envoy(bootstrap, here, tmp_path) as envoy:
            envoy.wait_ready()
            door = Door(name="gateway", port=envoy.port("edge/public/http"))
            good, bad = (send(door, "GET", "/", (("authorization", f"Bearer {w}"),)) for w in ("good", "bad"))
            results = [asked.record(number) for number in (1, 2)]
            asked.serve.child.stop()
            outage = send(door, "GET", "/", (("authorization", "Bearer good"),))

    assert (good.status, bad.status, outage.status) == (200, 403, 503)
    assert [each["result"]["reason"] for each in results] == ["allow-rule-matched", "no-allow-rule-matched"]
    assert bad.headers["x-countersign-decision-id"] == results[1]["decision_id"]
    assert {each["input"]["destination"]["workload"]["namespace"] for each in results} == {"edge"}


def _routes(configuration: dict[str, Any]) -> list[dict[str, Any]]:
    return [route for host in configuration["virtualHosts"] for route in host["routes"]]


def _secrets(certificate: str, key: str, authority: str) -> list[dict[str, Any]]:
    """What Envoy Gateway sends besides, which `egctl` does not print."""
    kind = {"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"}
    pair = {"certificateChain": {"inlineString": certificate}, "privateKey": {"inlineString": key}}
    trusted = {"trustedCa": {"inlineString": authority}}
    return [
        {**kind, "name": "envoy-gateway-system/envoy-client-tls", "tlsCertificate": pair},
        {**kind, "name": "countersign/countersign-ca", "validationContext": trusted},
    ]
