"""One Envoy worker with mutual TLS and a direct response: without a filter, with its own, or with an authorizer."""

import json
import ssl
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import yaml
from countersign.mesh.envoy import find_envoy
from countersign.mesh.process import Child, wait_until

from bench.http2 import STATUS_200, Exchange, get_exchange
from tests.envoy.judge import jwt_authn
from tests.envoy.judge.policy_set import MESH
from tests.envoy.judge.rules import Target
from tests.envoy.judge.translate import filters

Json = Mapping[str, Any]

_HTTP: Final = "type.googleapis.com/envoy.extensions.filters.http"
_NETWORK: Final = "type.googleapis.com/envoy.extensions.filters.network"
_TLS: Final = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"
_READY_WITHIN: Final = 30.0


def native_filters(policies: str, *, cached: bool) -> list[Json]:
    """The policies as Envoy's own `jwt_authn` and `rbac`; ``cached`` keeps verified tokens."""
    documents = list(yaml.safe_load_all(policies))
    authentications = [each for each in documents if each["kind"] == "RequestAuthentication"]
    jwt = dict(jwt_authn.filter_config(jwt_authn.rules_of(authentications)))
    jwt["rules"] = [{"match": {"prefix": "/"}, "requires": {"provider_name": "origins-0"}}]
    if cached:
        for provider in jwt["providers"].values():
            provider["jwt_cache_config"] = {"jwt_cache_size": 20_000, "jwt_max_token_size": 4096}
    rbac = filters([each for each in documents if each["kind"] == "AuthorizationPolicy"], Target(mesh=MESH))
    own = [{"name": f"rbac-{number}", "typed_config": each["typedConfig"]} for number, each in enumerate(rbac)]
    return [{"name": "jwt_authn", "typed_config": jwt}, *own]


def ext_authz_filter() -> Json:
    """The callout, as `envoy/httpbin.yaml` has it but for the timeout: a benchmark overloads on purpose."""
    return {
        "name": "ext_authz",
        "typed_config": {
            "@type": f"{_HTTP}.ext_authz.v3.ExtAuthz",
            "transport_api_version": "V3",
            "grpc_service": {"envoy_grpc": {"cluster_name": "authorizer"}, "timeout": "5s"},
            "failure_mode_allow": False,
            "validate_mutations": True,
            "encode_raw_headers": True,
            "include_tls_session": True,
            "bootstrap_metadata_labels_key": "labels",
        },
    }


class BenchEnvoy:
    """Runs from entering the context to leaving it, on one worker."""

    def __init__(self, directory: Path, http_filters: Sequence[Json], authorizer: Path | None, cpu: int) -> None:
        self._directory = directory
        self._cpu = cpu
        file = directory / "bench-envoy.json"
        file.write_text(json.dumps(_bootstrap(directory, http_filters, authorizer)), encoding="utf-8")
        self._file = file
        self.port = 0

    def __enter__(self) -> Self:
        """Start it and wait for its listener."""
        admin = self._directory / "bench-envoy.admin"
        admin.unlink(missing_ok=True)
        command = ["taskset", "-c", str(self._cpu), str(find_envoy()), "-c", str(self._file)]
        command += ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
        command += ["--admin-address-path", str(admin)]
        self.child = Child("bench-envoy", command, directory=self._directory)
        self.port = wait_until("starting envoy", self._listening(admin), within=_READY_WITHIN, child=self.child)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.child.stop()

    def _listening(self, admin: Path) -> Callable[[], int | None]:
        def port() -> int | None:
            text = admin.read_text(encoding="utf-8") if admin.exists() else ""
            return _listener_port(text) if text else None

        return port


def client_tls(directory: Path) -> ssl.SSLContext:
    """The caller's side of the connection."""
    context = ssl.create_default_context(cafile=directory / "sleep" / "ca.crt")
    context.load_cert_chain(directory / "sleep" / "tls.crt", directory / "sleep" / "tls.key")
    context.set_alpn_protocols(["h2"])
    context.check_hostname = False  # the port is a loopback one, the certificate names the workload
    return context


def get(path: str, token: str) -> Exchange:
    """The benchmark's request, as a service of the mesh would send it."""
    headers = [
        ("authorization", f"Bearer {token}"),
        ("accept", "application/json"),
        ("user-agent", "orders/1.8.2"),
        ("x-b3-traceid", "463ac35c9f6413ad48485a3953bb6124"),
        ("x-b3-spanid", "a2fb4a1d1a96d312"),
        ("x-b3-sampled", "0"),
        ("accept-language", "en"),
    ]
    return get_exchange(path, "orders.apps.svc.cluster.local", headers)


def by_status(status: int, _data: bytes) -> str:
    """What Envoy's answer is called."""
    return "allow" if status == STATUS_200 else "deny"


def _listener_port(address: str) -> int | None:
    import http.client  # noqa: PLC0415

    connection = http.client.HTTPConnection(address, timeout=2)
    try:
        connection.request("GET", "/listeners?format=json")
        statuses = json.loads(connection.getresponse().read()).get("listener_statuses", [])
    except (OSError, ValueError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return int(statuses[0]["local_address"]["socket_address"]["port_value"]) if statuses else None


def _bootstrap(directory: Path, http_filters: Sequence[Json], authorizer: Path | None) -> Json:
    clusters = [] if authorizer is None else [_authorizer(authorizer)]
    return {
        "node": {"id": "bench", "cluster": "bench", "metadata": {"labels": {"app": "httpbin"}}},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "layered_runtime": {
            "layers": [{"name": "static", "static_layer": {"re2.max_program_size.error_level": 32768}}]
        },
        "static_resources": {"listeners": [_listener(directory, http_filters)], "clusters": clusters},
    }


def _listener(directory: Path, http_filters: Sequence[Json]) -> Json:
    certificates = directory / "httpbin"
    tls = {
        "@type": f"{_TLS}.DownstreamTlsContext",
        "require_client_certificate": True,
        "common_tls_context": {
            "alpn_protocols": ["h2"],
            "tls_certificates": [
                {
                    "certificate_chain": {"filename": str(certificates / "tls.crt")},
                    "private_key": {"filename": str(certificates / "tls.key")},
                }
            ],
            "validation_context": {"trusted_ca": {"filename": str(certificates / "ca.crt")}},
        },
    }
    manager = {
        "@type": f"{_NETWORK}.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "normalize_path": True,
        "use_remote_address": True,
        "forward_client_cert_details": "APPEND_FORWARD",
        "set_current_client_cert_details": {"subject": True, "uri": True, "dns": True},
        "http2_protocol_options": {"max_concurrent_streams": 1024},
        "http_filters": [
            *http_filters,
            {"name": "router", "typed_config": {"@type": f"{_HTTP}.router.v3.Router"}},
        ],
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [
                        {
                            "match": {"prefix": "/"},
                            "direct_response": {"status": 200, "body": {"inline_string": "ok"}},
                        }
                    ],
                }
            ]
        },
    }
    return {
        "name": "inbound",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [
            {
                "transport_socket": {"name": "tls", "typed_config": tls},
                "filters": [{"name": "hcm", "typed_config": manager}],
            }
        ],
    }


def _authorizer(socket: Path) -> Json:
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    http2 = {"@type": f"type.googleapis.com/{options}", "explicit_http_config": {"http2_protocol_options": {}}}
    endpoint = {"endpoint": {"address": {"pipe": {"path": str(socket)}}}}
    return {
        "name": "authorizer",
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {options: http2},
        "circuit_breakers": {"thresholds": [{"max_requests": 4096, "max_pending_requests": 4096}]},
        "load_assignment": {"cluster_name": "authorizer", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
