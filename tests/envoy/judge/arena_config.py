"""The configuration of the judge's Envoy: for each policy set one route by native filters and two by Countersign.

Everything that a policy can look at is shared by the routes: listener, TLS connection, connection manager. A header
chooses the route, so that one Envoy carries hundreds of sets.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.envoy.judge import jwt_authn
from tests.envoy.judge.matchers import Json
from tests.envoy.judge.rules import Target
from tests.envoy.judge.translate import filters
from tests.envoy.judge.trust import Mesh, applying

MESH: Final = Mesh(trust_domain="cluster.local", aliases=("old.example",), root_namespace="istio-system")
NATIVE: Final = "native"
POSTURES: Final = ("istio", "strict")
ARMS: Final = (NATIVE, *POSTURES)
ARM_HEADER: Final = "x-arm"  # never in a policy
REMOTE_IP_HOPS: Final = 1  # proxies before Envoy, for `remote.ip`

_HTTP: Final = "type.googleapis.com/envoy.extensions.filters.http"
_JWT: Final = "envoy.filters.http.jwt_authn"
_METADATA: Final = {"metadata_namespace": "envoy.filters.a.b", "value": {"c": "v", "l": ["v", "w"], "n": 5}}
_RBAC: Final = {"LOG": "rbac.audit", "DENY": "rbac.deny", "ALLOW": "rbac.allow"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySet:
    """Policies for one workload; the namespace's name is the set's."""

    name: str
    documents: Sequence[Json]

    @property
    def labels(self) -> Mapping[str, str]:
        """The workload's: ``set`` lets a policy of the root namespace select this one."""
        return {"app": "web", "set": self.name}

    def applying(self, kind: str) -> list[Json]:
        """The resources that apply to the workload."""
        return applying(self.documents, kind, self.name, dict(self.labels), MESH)


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
    jwt = [
        {"name": f"{_JWT}.{each.name}", "typed_config": jwt_authn.filter_config(rules), "disabled": True}
        for each in sets
        if (rules := jwt_authn.rules_of(each.applying("RequestAuthentication")))
    ]
    layer = {
        "name": "as Istio's bootstrap has it",
        "static_layer": {
            "envoy.reloadable_features.http_reject_path_with_fragment": False,
            "re2.max_program_size.error_level": 32768,
        },
    }
    return {
        "node": {"id": "judge", "cluster": "judge"},
        "admin": {"address": _address("127.0.0.1", 0)},
        "layered_runtime": {"layers": [layer]},
        "static_resources": {
            "listeners": [_listener(name, places, jwt) for name in places.listeners],
            "clusters": [_cluster(name, places) for name in ("echo", *POSTURES)],
        },
    }


def _address(host: str, port: int) -> Json:
    return {"socket_address": {"address": host, "port_value": port}}


def _listener(name: str, places: Places, jwt: Sequence[Json]) -> Json:
    host, port = places.listeners[name]
    manager = {"name": "envoy.filters.network.http_connection_manager", "typed_config": _manager(name, places, jwt)}
    inspector = "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"
    return {
        "name": name,
        "address": _address(host, port),
        "listener_filters": [{"name": "tls_inspector", "typed_config": {"@type": inspector}}],
        "filter_chains": [
            {
                "filter_chain_match": {"transport_protocol": "tls"},
                "transport_socket": {"name": "tls", "typed_config": _tls(places.directory)},
                "filters": [manager],
            },
            {"filter_chain_match": {"transport_protocol": "raw_buffer"}, "filters": [manager]},
        ],
    }


def _tls(directory: Path) -> Json:
    names = [
        {"san_type": "URI", "matcher": {"prefix": f"spiffe://{domain}/"}} for domain in MESH.trust_domains
    ]  # as Istio's sidecars
    return {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "require_client_certificate": True,
        "common_tls_context": {
            "tls_certificates": [
                {
                    "certificate_chain": {"filename": str(directory / "server.crt")},
                    "private_key": {"filename": str(directory / "server.key")},
                }
            ],
            "validation_context": {
                "trusted_ca": {"filename": str(directory / "ca.crt")},
                "match_typed_subject_alt_names": names,
            },
        },
    }


def _manager(name: str, places: Places, jwt: Sequence[Json]) -> Json:
    off = {"disabled": True}  # a route enables what it wants
    router: Json = {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{_HTTP}.router.v3.Router"}}
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
                "typed_config": {"@type": f"{_HTTP}.set_metadata.v3.Config", "metadata": [_METADATA]},
            },
            *jwt,
            *({"name": rbac, "typed_config": {"@type": f"{_HTTP}.rbac.v3.RBAC"}, **off} for rbac in _RBAC.values()),
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
        "@type": f"{_HTTP}.ext_authz.v3.ExtAuthz",
        "transport_api_version": "V3",
        "grpc_service": {"envoy_grpc": {"cluster_name": cluster}, "timeout": "5s"},
        "status_on_error": {"code": "ServiceUnavailable"},
        "validate_mutations": True,
        "encode_raw_headers": True,
        "include_tls_session": True,
        "metadata_context_namespaces": [_METADATA["metadata_namespace"]],
    }


def _cluster(name: str, places: Places) -> Json:
    endpoint = {"endpoint": {"address": {"pipe": {"path": str(places.socket(name))}}}}
    assignment = {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]}
    cluster: Json = {"name": name, "type": "STATIC", "connect_timeout": "1s", "load_assignment": assignment}
    if name in POSTURES:
        options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
        http2 = {"@type": f"type.googleapis.com/{options}", "explicit_http_config": {"http2_protocol_options": {}}}
        cluster["typed_extension_protocol_options"] = {options: http2}
    return cluster


def routes(sets: Sequence[PolicySet]) -> Json:
    """The file of routes: each set on each arm."""
    host = {
        "name": "judge",
        "domains": ["*"],
        "routes": [_route(each, arm) for each in sets for arm in ARMS],
    }
    config = {
        "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        "name": "judge",
        "virtual_hosts": [host],
    }
    return {"version_info": "1", "resources": [config]}


def _route(policies: PolicySet, arm: str) -> Json:
    chooses = {"name": ARM_HEADER, "string_match": {"exact": f"{arm}/{policies.name}"}}
    return {
        "match": {"safe_regex": {"regex": "(?s).*"}, "headers": [chooses]},
        "route": {"cluster": "echo", "timeout": "5s"},
        "typed_per_filter_config": native(policies) if arm == NATIVE else _asked(policies, arm),
    }


def native(policies: PolicySet) -> Json:
    """The set as Envoy's own filters."""
    config: Json = {}
    if jwt_authn.rules_of(policies.applying("RequestAuthentication")):
        own = f"{_JWT}.{policies.name}"
        config[own] = {"@type": f"{_HTTP}.jwt_authn.v3.PerRouteConfig", "requirement_name": jwt_authn.REQUIREMENT}
    for each in filters(policies.applying("AuthorizationPolicy"), Target(mesh=MESH)):
        rbac = dict(each["typedConfig"])
        rules = rbac.get("rules") or rbac["shadowRules"]
        config[_RBAC[rules.get("action", "ALLOW")]] = {"@type": f"{_HTTP}.rbac.v3.RBACPerRoute", "rbac": rbac}
        del rbac["@type"]
    return config


def _asked(policies: PolicySet, posture: str) -> Json:
    labels = ",".join(f"{name}={value}" for name, value in policies.labels.items())
    extensions = {"workload.namespace": policies.name, "workload.labels": labels}
    settings = {"context_extensions": extensions}
    return {f"ext_authz.{posture}": {"@type": f"{_HTTP}.ext_authz.v3.ExtAuthzPerRoute", "check_settings": settings}}
