"""Whether connections go past the check, to where checked requests go.

Source: measured on Envoy 1.40, ``tests/envoy/test_findings_beside.py``. Where `tcp_proxy` goes, `sni_cluster` lets the
server name say, and `set_filter_state` the key `envoy.tcp_proxy.cluster`.
"""

from collections.abc import Iterator
from typing import Final

import yaml

from countersign.proxy.lint.callout import assigned
from countersign.proxy.lint.chains import TcpProxy
from countersign.proxy.lint.codes import EnvoyCode
from countersign.proxy.lint.expected import Findings, warning
from countersign.proxy.lint.find import Found
from countersign.proxy.lint.routes import configurations_of
from countersign.proxy.lint.tree import field, is_kind, items, text, walk

_KEY: Final = "envoy.tcp_proxy.cluster"


def check_tcp(found: Found) -> Findings:
    """Each `tcp_proxy` without a check of the connection; those of outbound listeners do not count."""
    checked = {
        name
        for manager in found.managers
        if manager.asking
        for part in (manager.config, *configurations_of(manager, found.route_configurations))
        for name in _clusters(part)
    }
    places = {place for name in checked for place in _places(name, found)}
    for each in found.tcp_proxies:
        if each.asked or each.outbound or not checked:
            continue
        named = {*_destinations(each.config), *_named_before(each)}
        same = any(not places.isdisjoint(_places(name, found)) for name in named)
        if _is_steered(each) or same or not checked.isdisjoint(named):
            fix = "the network filter envoy.filters.network.ext_authz before it, or no such filter chain"
            why = "connections pass here without a check, to where requests come with one"
            yield warning(EnvoyCode.NOT_ASKED_HERE, each.config, why, fix)


def _is_steered(proxy: TcpProxy) -> bool:
    """Whether who connects chooses the cluster."""
    names = any(is_kind(kind, "SniCluster") for kind, _ in proxy.before)
    return names or any("%" in name for name in _named_before(proxy))


def _named_before(proxy: TcpProxy) -> Iterator[str]:
    """The names that other filters of the chain write, or the formats that they write them by."""
    for _, config in proxy.before:
        for node in () if config is None else walk(config):
            if text(field(node, "object_key")) == _KEY:
                yield from (text(each) for each in walk(field(node, "format_string") or node))


def _places(cluster: str, found: Found) -> set[tuple[str, str]]:
    """Where a cluster's endpoints are; none if that is not in the file."""
    endpoints = [assigned(each, found.assignments) for each in found.clusters if text(field(each, "name")) == cluster]
    nodes = [node for each in endpoints if each is not None for node in walk(each)]
    sockets = [(text(field(node, "address")), text(field(node, "port_value"))) for node in nodes]
    return {(host, port) for host, port in sockets if host} | {
        (path, "") for node in nodes if (path := text(field(node, "pipe", "path")))
    }


def _clusters(node: yaml.Node) -> Iterator[str]:
    for each in walk(node):
        yield from _destinations(field(each, "route"))


def _destinations(node: yaml.Node | None) -> list[str]:
    """The names of the clusters that a route, or a TcpProxy, sends to."""
    weighted = items(field(node, "weighted_clusters", "clusters"))
    named = (field(node, "cluster"), *(field(each, "name") for each in weighted))
    return [text(name) for name in named if name is not None]
