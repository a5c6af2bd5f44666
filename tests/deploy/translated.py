"""What Envoy Gateway makes of the manifests, as files from which the real Envoy takes it.

Nothing of it changes but where things are: addresses become those of this machine, and what a management server would
send over ADS comes from a file of its own (one holds one route configuration, one cluster's endpoints, one secret).
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from tests.deploy.programs import MANIFESTS, run

GATEWAY: Final = "edge/public"
CLUSTER_IPS: Final = {"countersign": "10.96.0.2", "httpbin": "10.96.0.3"}
_AROUND: Final = """\
{apiVersion: gateway.networking.k8s.io/v1, kind: GatewayClass, metadata: {name: eg}, spec: {
  controllerName: gateway.envoyproxy.io/gatewayclass-controller, parametersRef: {
    group: gateway.envoyproxy.io, kind: EnvoyProxy, name: countersign, namespace: envoy-gateway-system}}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: public, namespace: edge}, spec: {
  gatewayClassName: eg, listeners: [{name: http, protocol: HTTP, port: 8080}]}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: httpbin, namespace: edge}, spec: {
  parentRefs: [{name: public}], rules: [{backendRefs: [{name: httpbin, port: 8000}]}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: httpbin, namespace: edge}, spec: {
  clusterIP: 10.96.0.3, ports: [{name: http, port: 8000, protocol: TCP}]}}
"""


def objects(certificate: str, key: str, authority: str) -> list[dict[str, Any]]:
    """The manifests, Countersign's Service, a Gateway with a route, and what the page has one create."""
    folder = MANIFESTS / "envoy-gateway"
    named = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    service = next(yaml.safe_load_all((MANIFESTS / "deployment" / "service.yaml").read_text()))
    service["metadata"]["namespace"] = "countersign"
    service["spec"]["clusterIP"] = CLUSTER_IPS["countersign"]
    service["spec"]["ports"][0]["protocol"] = "TCP"
    where = {"name": "countersign-ca", "namespace": "countersign"}
    secret = {"name": "envoy-client-tls", "namespace": "envoy-gateway-system"}
    pair = {"tls.crt": certificate, "tls.key": key}
    return [
        *yaml.safe_load_all(_AROUND),
        *({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": n}} for n in ("edge", "countersign")),
        *(yaml.safe_load((folder / name).read_text()) for name in named),
        service,
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": where, "data": {"ca.crt": authority}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": secret, "type": "kubernetes.io/tls", "stringData": pair},
    ]


def translate(those: list[dict[str, Any]], directory: Path) -> tuple[dict[str, Any], str]:
    """What Envoy Gateway makes of objects, statuses included, or what it has against them."""
    file = directory / "objects.yaml"
    file.write_text(yaml.safe_dump_all(those))
    result = run("egctl", *("x", "translate", "--to", "gateway-api,xds", "-o", "json", "-f", file))
    return (json.loads(result.stdout), "") if result.returncode == 0 else ({}, result.stderr)


def resources(dump: Mapping[str, Any], kind: str) -> list[dict[str, Any]]:
    """All of a kind: `Listener`, `Cluster`, `RouteConfiguration`, `ClusterLoadAssignment`."""
    parts = (each for each in dump["configs"] if not each["@type"].endswith("BootstrapConfigDump"))
    return [node for part in parts for node in walk(part) if node.get("@type", "").endswith(f".{kind}")]


def walk(node: object) -> Iterator[dict[str, Any]]:
    """Every object in it."""
    if isinstance(node, dict):
        yield node
    for each in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from walk(each)


def as_files(
    dump: Mapping[str, Any], secrets: list[dict[str, Any]], places: Mapping[str, int], directory: Path
) -> Path:
    """The bootstrap. ``places``: ``host:port`` -> the port on loopback."""
    sent = {kind: resources(dump, kind) for kind in ("Listener", "Cluster", "RouteConfiguration")}
    sent["ClusterLoadAssignment"] = resources(dump, "ClusterLoadAssignment")
    sent["Secret"] = secrets
    files = {each.get("name") or each["clusterName"]: each for kind in [*sent][2:] for each in sent[kind]}
    paths = {name: directory / f"resource-{number}.json" for number, name in enumerate(files)}
    for node in walk([*sent.values()]):
        _from_file(node, paths)
        if (address := node.get("socketAddress")) is not None:
            port = places[f"{address['address']}:{address['portValue']}"]
            address |= {"address": "127.0.0.1", "portValue": port}
    for name, resource in files.items():
        _write(paths[name], [resource])
    for name in ("Listener", "Cluster"):
        _write(directory / f"{name}.json", sent[name])
    bootstrap = {
        "node": {"id": "gateway", "cluster": GATEWAY},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "dynamic_resources": {
            "lds_config": _source(directory / "Listener.json"),
            "cds_config": _source(directory / "Cluster.json"),
        },
    }
    (directory / "gateway.yaml").write_text(yaml.safe_dump(bootstrap))
    return directory / "gateway.yaml"


def _from_file(node: dict[str, Any], paths: Mapping[str, Path]) -> None:
    for key, name in (("edsConfig", "serviceName"), ("configSource", "routeConfigName"), ("sdsConfig", "name")):
        if key in node:
            node[key] = _source(paths[node[name]])


def _source(path: Path) -> dict[str, Any]:
    return {"pathConfigSource": {"path": str(path)}, "resourceApiVersion": "V3"}


def _write(path: Path, those: list[dict[str, Any]]) -> None:
    path.write_text(json.dumps({"versionInfo": "1", "resources": those}))
