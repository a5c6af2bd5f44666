"""Istio's control plane with the manifests as its configuration, and an Envoy that asks it for its own."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml
from countersign.mesh.envoy import Envoy
from countersign.mesh.process import Child, wait_until
from countersign.mesh.relocate import Places

from tests.cli.serving import free_port
from tests.deploy.api_server import QuietApiServer
from tests.deploy.programs import MANIFESTS, program
from tests.edge.probing import ask

OBJECTS: Final = ("authorizationpolicy.yaml", "destinationrule.yaml")
# Neither certificates nor webhooks are its business here. The two filters are in Istio's build of Envoy only.
_SETTINGS: Final = (
    "ENABLE_CA_SERVER=false",
    "PILOT_CERT_PROVIDER=none",
    "INJECT_ENABLED=false",
    "INJECTION_WEBHOOK_CONFIG_NAME=",
    "VALIDATION_WEBHOOK_CONFIG_NAME=",
    "PILOT_ENABLE_ALPN_FILTER=false",
    "PILOT_ENABLE_METADATA_EXCHANGE=false",
)
_AROUND: Final = """\
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: strict, namespace: apps}}
spec: {{mtls: {{mode: STRICT}}}}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: httpbin, namespace: apps}}
spec:
  workloadSelector: {{labels: {{app: httpbin}}}}
  ingress:
    - port: {{number: {inbound}, protocol: HTTP, name: http}}
      bind: 127.0.0.1
      captureMode: NONE
      defaultEndpoint: 127.0.0.1:{application}
  egress: [{{hosts: ["countersign/*"]}}]
"""


@contextlib.contextmanager
def istiod(directory: Path, *, countersign: int, inbound: int, application: int) -> Iterator[int]:
    """The port where it serves ADS. The others: of Countersign's pod, of the proxy, of the application behind it."""
    files = directory / "istio"
    files.mkdir()
    for name in OBJECTS:
        shutil.copy(MANIFESTS / "istio" / name, files)
    (files / "around.yaml").write_text(_AROUND.format(inbound=inbound, application=application))
    (directory / "mesh.yaml").write_text(mesh_config())
    (directory / "networks.yaml").write_text("networks: {}\n")
    ads, http, monitoring = free_port(), free_port(), free_port()
    with QuietApiServer(_objects(countersign)) as server:
        (directory / "kubeconfig").write_text(_kubeconfig(server.url))
        command = [
            *("/usr/bin/env", *_SETTINGS, program("pilot-discovery"), "discovery", "--registries", "Kubernetes"),
            *("--kubeconfig", directory / "kubeconfig", "--configDir", files),
            *("--meshConfig", directory / "mesh.yaml", "--networksConfig", directory / "networks.yaml"),
            *("--grpcAddr", f"127.0.0.1:{ads}", "--httpAddr", f"127.0.0.1:{http}", "--ctrlz_port", "0"),
            *("--monitoringAddr", f"127.0.0.1:{monitoring}", "--httpsAddr", "", "--secureGRPCAddr", ""),
        ]
        child = Child("istiod", [*map(str, command)], directory=directory)
        try:
            wait_until("starting istiod", lambda: _is_ready(http), within=60, child=child)
            yield ads
        finally:
            child.stop()


def mesh_config() -> str:
    """MeshConfig as the page has it set, without the filters of Istio's own metrics."""
    values = yaml.safe_load((MANIFESTS / "istio" / "values.yaml").read_text())
    return yaml.safe_dump({**values["meshConfig"], "defaultProviders": {}})


@contextlib.contextmanager
def proxy(directory: Path, ads: int, secrets: Path) -> Iterator[Envoy]:
    """The real Envoy as the sidecar of `app: httpbin` in `apps`; ``secrets`` is the socket of its agent."""
    metadata = {
        "NAMESPACE": "apps",
        "LABELS": {"app": "httpbin"},
        "SERVICE_ACCOUNT": "httpbin",
        "CLUSTER_ID": "Kubernetes",
        "INTERCEPTION_MODE": "NONE",
        "ISTIO_VERSION": "1.31.0",
        "INSTANCE_IPS": "127.0.0.1",
    }
    source = {"ads": {}, "resource_api_version": "V3"}
    service = [{"envoy_grpc": {"cluster_name": "xds-grpc"}}]
    agent = {"pipe": {"path": str(secrets)}}
    bootstrap = {
        "node": {
            "id": "sidecar~127.0.0.1~httpbin.apps~apps.svc.cluster.local",
            "cluster": "httpbin.apps",
            "metadata": metadata,
        },
        "admin": {"address": _socket(0)},
        "dynamic_resources": {
            "ads_config": {"api_type": "GRPC", "transport_api_version": "V3", "grpc_services": service},
            "lds_config": source,
            "cds_config": source,
        },
        "static_resources": {"clusters": [_cluster("xds-grpc", _socket(ads)), _cluster("sds-grpc", agent)]},
    }
    (directory / "proxy.yaml").write_text(yaml.safe_dump(bootstrap))
    places = Places(
        addresses={f"127.0.0.1:{port}": ("127.0.0.1", port) for port in (0, ads)}, paths={str(directory): directory}
    )
    with Envoy(directory / "proxy.yaml", places, directory) as envoy:
        envoy.wait_ready()
        yield envoy


def _is_ready(port: int) -> bool | None:
    try:
        return ask(port, "/ready")[0] == 200 or None
    except OSError:
        return None


def _objects(countersign: int) -> dict[str, list[dict[str, Any]]]:
    """Countersign's Service as it is in the manifests, and the endpoint of a pod."""
    service = next(yaml.safe_load_all((MANIFESTS / "deployment" / "service.yaml").read_text()))
    service["metadata"]["namespace"] = "countersign"
    service["spec"]["clusterIP"] = "10.96.0.2"
    labels = {"kubernetes.io/service-name": service["metadata"]["name"]}
    endpoints = {
        "metadata": {"name": "countersign-1", "namespace": "countersign", "labels": labels},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}}],
        "ports": [{"name": "grpc", "port": countersign, "protocol": "TCP"}],
    }
    return {
        "/api/v1/namespaces": [{"metadata": {"name": name}} for name in ("apps", "countersign", "istio-system")],
        "/api/v1/services": [service],
        "/apis/discovery.k8s.io/v1/endpointslices": [endpoints],
    }


def _kubeconfig(url: str) -> str:
    name = "here"
    return yaml.safe_dump(
        {
            "clusters": [{"name": name, "cluster": {"server": url}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
            "users": [{"name": name, "user": {}}],
            "current-context": name,
        }
    )


def _socket(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _cluster(name: str, address: dict[str, Any]) -> dict[str, Any]:
    kind = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    http2 = {"@type": f"type.googleapis.com/{kind}", "explicit_http_config": {"http2_protocol_options": {}}}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    return {
        "name": name,
        "type": "STATIC",
        "typed_extension_protocol_options": {kind: http2},
        "load_assignment": {"cluster_name": name, "endpoints": endpoints},
    }
