"""The configuration of the judge's Envoy for raw TCP: for each policy set and arm a listener of its own on each port.

There is no route to choose, and policies may look at all that could choose a filter chain; so the arms differ in their
address, which is in the same networks as far as policies name any. The namespace is told by the certificate that the
listener presents, the labels by Envoy's node: a network filter's check has nothing else.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.envoy.judge import peers
from tests.envoy.judge.arena_config import address, cluster, http2, tls
from tests.envoy.judge.matchers import Json
from tests.envoy.judge.native import unidentified
from tests.envoy.judge.peers import NATIVE, NOBODY
from tests.envoy.judge.policy_set import MESH, PORTS, PROVIDERS, PolicySet
from tests.envoy.judge.processes import POSTURES
from tests.envoy.judge.providers import ext_authz
from tests.envoy.judge.rules import Target
from tests.envoy.judge.translate import filters

ARMS: Final = (NATIVE, NOBODY, *POSTURES)
_NETWORK: Final = "type.googleapis.com/envoy.extensions.filters.network"
_LABELS: Final = "labels"


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpPlaces:
    """``hosts``: the address of each arm (by name) of each set (by name)."""

    directory: Path
    hosts: Mapping[tuple[str, str], str]


def bootstrap(sets: Sequence[PolicySet], places: TcpPlaces) -> Json:
    """Everything; nothing of it changes."""
    return {
        "node": {"id": "judge", "cluster": "judge", "metadata": {_LABELS: dict(sets[0].labels)}},
        "admin": {"address": address("127.0.0.1", 0)},
        "static_resources": {
            "listeners": [
                _listener(each, arm, port, places) for each in sets for arm in ARMS for port in PORTS.values()
            ],
            "clusters": list(_clusters(places.directory)),
        },
    }


def _listener(policies: PolicySet, arm: str, port: int, places: TcpPlaces) -> Json:
    chain = [*_filters(policies, arm), _proxy()]
    inspector = "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"
    socket = tls(places.directory, server=policies.name, admits_any=port == PORTS["verbatim"])
    return {
        "name": f"{arm}/{policies.name}:{port}",
        "address": address(places.hosts[arm, policies.name], port),
        "enable_reuse_port": False,
        "listener_filters": [{"name": "tls_inspector", "typed_config": {"@type": inspector}}],
        "filter_chains": [
            {
                "filter_chain_match": {"transport_protocol": "tls"},
                "transport_socket": {"name": "tls", "typed_config": socket},
                "filters": chain,
            },
            {"filter_chain_match": {"transport_protocol": "raw_buffer"}, "filters": chain},
        ],
    }


def _filters(policies: PolicySet, arm: str) -> Iterator[Json]:
    if arm in POSTURES:
        yield {"name": "ext_authz", "typed_config": _asks(arm)}
        return
    modes = peers.rbac(policies.modes(), list(PORTS.values()), MESH)
    yield {
        "name": "rbac",
        "typed_config": {"@type": f"{_NETWORK}.rbac.v3.RBAC", "stat_prefix": "peers.", **modes},
    }
    if policies.made is not None:
        yield from policies.made.tcp if arm == NATIVE else unidentified(policies.made.tcp)
        return
    target = Target(mesh=MESH, tcp=True, providers=PROVIDERS, identified=arm == NATIVE)
    yield from filters(policies.applying("AuthorizationPolicy"), target)


def _asks(posture: str) -> Json:
    return {
        "@type": f"{_NETWORK}.ext_authz.v3.ExtAuthz",
        "stat_prefix": posture,
        "transport_api_version": "V3",
        "grpc_service": {"envoy_grpc": {"cluster_name": posture}, "timeout": "5s"},
        "failure_mode_allow": False,
        "include_peer_certificate": True,
        "include_tls_session": True,
        "bootstrap_metadata_labels_key": _LABELS,
    }


def _proxy() -> Json:
    settings = {"@type": f"{_NETWORK}.tcp_proxy.v3.TcpProxy", "stat_prefix": "echo", "cluster": "echo"}
    return {"name": "tcp_proxy", "typed_config": settings}


def _clusters(directory: Path) -> Iterator[Json]:
    yield cluster("echo", directory / "echo.sock")
    yield from (http2(cluster(posture, directory / f"{posture}.sock")) for posture in POSTURES)
    for name in PROVIDERS:  # nobody is there, so that whoever is asked about is closed
        asks = ext_authz(name, PROVIDERS, tcp=True) or {}
        service = asks["typedConfig"]["grpcService"]["envoyGrpc"]
        yield http2(cluster(service["clusterName"], directory / "nobody.sock"))
