"""The configuration of the judge's Envoy: for each policy set one route by native filters and two by Countersign.

Everything that a policy can look at is shared by the routes: listener, TLS connection, connection manager. A header
chooses the route, so that one Envoy carries hundreds of sets.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.envoy.judge import jwt_authn, key_server, native
from tests.envoy.judge.matchers import Json
from tests.envoy.judge.native import HTTP
from tests.envoy.judge.peers import NATIVE, NOBODY, REFUSED
from tests.envoy.judge.policy_set import MESH, PROVIDERS, PolicySet
from tests.envoy.judge.processes import POSTURES, REMOTE_IP_HOPS
from tests.envoy.judge.providers import ext_authz

ARM_HEADER: Final = "x-arm"  # never in a policy

_METADATA: Final = {"metadata_namespace": "envoy.filters.a.b", "value": {"c": "v", "l": ["v", "w"], "n": 5}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where the parts are. ``listeners``: name to address; the ports are fixed, for policies name them."""

    directory: Path
    listeners: Mapping[str, tuple[str, int]]

    def socket(self, name: str) -> Path:
        """The unix socket of a part."""
        return self.directory / f"{name}.sock"


def bootstrap(sets: Sequence[PolicySet], places: Places) -> Json:
    """The static part; routes come from a file, which both listeners share."""
    layer = {
        "name": "as Istio's bootstrap has it",
        "static_layer": {
            "envoy.reloadable_features.http_reject_path_with_fragment": False,
            "re2.max_program_size.error_level": 32768,
        },
    }
    return {
        "node": {"id": "judge", "cluster": "judge"},
        "admin": {"address": address("127.0.0.1", 0)},
        "layered_runtime": {"layers": [layer]},
        "static_resources": {
            "listeners": [_listener(name, places, sets) for name in places.listeners],
            "clusters": list(_clusters(places)),
        },
    }


def address(host: str, port: int) -> Json:
    """A TCP address."""
    return {"socket_address": {"address": host, "port_value": port}}


def _listener(name: str, places: Places, sets: Sequence[PolicySet]) -> Json:
    host, port = places.listeners[name]
    manager = {"name": "envoy.filters.network.http_connection_manager", "typed_config": _manager(name, places, sets)}
    inspector = "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"
    return {
        "name": name,
        "address": address(host, port),
        "enable_reuse_port": False,  # or two trials could share one, and take each other's requests
        "listener_filters": [{"name": "tls_inspector", "typed_config": {"@type": inspector}}],
        "filter_chains": [
            {
                "filter_chain_match": {"transport_protocol": "tls"},
                "transport_socket": {
                    "name": "tls",
                    "typed_config": tls(places.directory, admits_any=name == "verbatim"),
                },
                "filters": [manager],
            },
            {"filter_chain_match": {"transport_protocol": "raw_buffer"}, "filters": [manager]},
        ],
    }


def tls(directory: Path, *, server: str = "server", admits_any: bool) -> Json:
    """As Istio's sidecars have it; or ``admits_any`` certificate of the CA (PILOT_SKIP_VALIDATE_TRUST_DOMAIN)."""
    names = [{"san_type": "URI", "matcher": {"prefix": f"spiffe://{domain}/"}} for domain in MESH.trust_domains]
    return {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "require_client_certificate": True,
        "common_tls_context": {
            "tls_certificates": [
                {
                    "certificate_chain": {"filename": str(directory / f"{server}.crt")},
                    "private_key": {"filename": str(directory / f"{server}.key")},
                }
            ],
            "validation_context": {
                "trusted_ca": {"filename": str(directory / "ca.crt")},
                **({} if admits_any else {"match_typed_subject_alt_names": names}),
            },
        },
    }


def _manager(name: str, places: Places, sets: Sequence[PolicySet]) -> Json:
    off = {"disabled": True}  # a route enables what it wants
    router: Json = {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{HTTP}.router.v3.Router"}}
    return {
        "@type": "type.googleapis.com/envoy.extensions.filters.network"
        ".http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "normalize_path": name == "normalising",  # Istio's default; the other listener passes paths as they come
        "use_remote_address": True,
        "xff_num_trusted_hops": REMOTE_IP_HOPS,
        "forward_client_cert_details": "APPEND_FORWARD",
        "set_current_client_cert_details": {"subject": True, "uri": True, "dns": True},
        "http_filters": [
            {
                "name": "set_metadata",
                "typed_config": {"@type": f"{HTTP}.set_metadata.v3.Config", "metadata": [_METADATA]},
            },
            *native.http_filters(sets),
            *({"name": f"ext_authz.{each}", "typed_config": _ext_authz(each), **off} for each in POSTURES),
            router,
        ],
        "rds": {
            "route_config_name": "judge",
            "config_source": {"path_config_source": {"path": str(places.directory / "routes.json")}},
        },
    }


def _ext_authz(cluster: str) -> Json:
    return {
        "@type": f"{HTTP}.ext_authz.v3.ExtAuthz",
        "transport_api_version": "V3",
        "grpc_service": {"envoy_grpc": {"cluster_name": cluster}, "timeout": "5s"},
        "status_on_error": {"code": "ServiceUnavailable"},
        "validate_mutations": True,
        "encode_raw_headers": True,
        "include_tls_session": True,
        "metadata_context_namespaces": [_METADATA["metadata_namespace"]],
    }


def _clusters(places: Places) -> Iterator[Json]:
    """The workload, Countersign in each posture and once more as a provider, and the issuers' keys."""
    yield cluster("echo", places.socket("echo"))
    yield from (http2(cluster(posture, places.socket(posture))) for posture in POSTURES)
    for name in PROVIDERS:
        asks = ext_authz(name, PROVIDERS, tcp=False) or {}
        service = asks["typedConfig"]["grpcService"]["envoyGrpc"]
        yield http2(cluster(service["clusterName"], places.socket(POSTURES[0])))
    yield key_server.cluster(jwt_authn.KEYS)


def cluster(name: str, socket: Path) -> Json:
    """An upstream on a unix socket."""
    endpoint = {"endpoint": {"address": {"pipe": {"path": str(socket)}}}}
    assignment = {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]}
    return {"name": name, "type": "STATIC", "connect_timeout": "1s", "load_assignment": assignment}


def http2(upstream: Json) -> Json:
    """The same, spoken to in HTTP/2."""
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    http2 = {"@type": f"type.googleapis.com/{options}", "explicit_http_config": {"http2_protocol_options": {}}}
    return {**upstream, "typed_extension_protocol_options": {options: http2}}


def routes(sets: Sequence[PolicySet]) -> Json:
    """The file of routes: each set on each arm."""
    config = {
        "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        "name": "judge",
        "virtual_hosts": [{"name": "judge", "domains": ["*"], "routes": [r for each in sets for r in _routes(each)]}],
    }
    return {"version_info": "1", "resources": [config]}


def _routes(policies: PolicySet) -> Iterator[Json]:
    arms = {
        NATIVE: native.per_route(policies, identified=True),
        NOBODY: native.per_route(policies, identified=False),
        REFUSED: native.refused(),
    }
    labels = ",".join(f"{name}={value}" for name, value in policies.labels.items())
    extensions = {"workload.namespace": policies.name, "workload.labels": labels}
    arms |= {posture: {f"ext_authz.{posture}": native.asked(extensions)} for posture in POSTURES}
    for arm, filters in arms.items():
        chooses = {"name": ARM_HEADER, "string_match": {"exact": f"{arm}/{policies.name}"}}
        yield {
            "match": {"safe_regex": {"regex": "(?s).*"}, "headers": [chooses]},
            "route": {"cluster": "echo", "timeout": "5s"},
            "typed_per_filter_config": filters,
        }
