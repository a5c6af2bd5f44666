"""Finds in a bootstrap, a resource or a `/config_dump` what decides whether and what Countersign is asked."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import yaml

from countersign.proxy.lint.chains import ASKS_OF_TCP, Manager, TcpProxy, is_from_afar, managers_of, tcp_proxies_of
from countersign.proxy.lint.tree import field, is_kind, items, members, text, typed, walk, word

_DIRECTIONS: Final = ("UNSPECIFIED", "INBOUND", "OUTBOUND")
_NOT_IN_USE = frozenset({"draining_state", "error_state"})  # of a config dump
_OF_CLUSTERS: Final = ("load_assignment", "eds_cluster_config", "cluster_type")
_FETCHED: Final = frozenset({"rds", "lds_config", "scoped_routes"})  # a dump has what came of them


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Everything that the checks look at."""

    managers: tuple[Manager, ...]
    network_filters: tuple[yaml.Node, ...]  # ext_authz of TCP
    tcp_proxies: tuple[TcpProxy, ...]
    per_route: tuple[tuple[str, yaml.Node], ...]  # `typed_per_filter_config`: the filter's name, its settings
    clusters: tuple[yaml.Node, ...]
    route_configurations: tuple[yaml.Node, ...]
    assignments: Mapping[str, yaml.Node]  # the endpoints of clusters that a management server gave, by their names
    secrets: Mapping[str, yaml.Node]  # validation contexts by the names of their secrets
    from_afar: bool  # what decides comes from a management server, and is not in this file


def find(root: yaml.Node) -> Found:
    """Look through the whole tree."""
    nodes = [node for part in _parts(root) for node in walk(part)]
    chains = [node for node in nodes if field(node, "filters") is not None]
    listeners = [node for node in nodes if field(node, "filter_chains") or field(node, "default_filter_chain")]
    outbound = {
        id(chain)
        for each in listeners
        if word(field(each, "traffic_direction"), _DIRECTIONS) == "OUTBOUND"
        for chain in walk(each)
    }
    extensions = [node for node in nodes if is_kind(typed(node)[0], "TypedExtensionConfig")]
    discovered = _named("name", "typed_config", extensions)
    managers = [each for chain in chains for each in managers_of(chain, discovered, outbound=id(chain) in outbound)]
    proxies = [each for chain in chains for each in tcp_proxies_of(chain, discovered, outbound=id(chain) in outbound)]
    network = [each for chain in chains for each in items(field(chain, "filters"))]
    http = [each for manager in managers for filters in manager.every_chain for each in filters]
    afar = any(each.from_afar for each in http) or any(is_from_afar(each, discovered) for each in network)
    per_route = [entry for node in nodes for entry in members(field(node, "typed_per_filter_config"))]
    fetched = field(root, "configs") is None and not _FETCHED.isdisjoint(map(_key, nodes))
    return Found(
        managers=tuple(managers),
        network_filters=tuple(node for node in nodes if typed(node)[0].endswith(ASKS_OF_TCP)),
        tcp_proxies=tuple(proxies),
        per_route=tuple((text(name), settings) for name, settings in per_route),
        clusters=tuple(node for node in nodes if any(field(node, name) is not None for name in _OF_CLUSTERS)),
        route_configurations=tuple(node for node in nodes if field(node, "virtual_hosts") is not None),
        assignments=_named("cluster_name", "endpoints", nodes),
        secrets=_named("name", "validation_context", nodes),
        from_afar=fetched or afar,
    )


def _named(name: str, value: str, nodes: Iterable[yaml.Node]) -> Mapping[str, yaml.Node]:
    """One member of each object that has both, by the other."""
    found = ((text(field(node, name)), field(node, value)) for node in nodes)
    return {key: each for key, each in found if key and each is not None}


def _key(node: yaml.Node) -> str:
    return text(node) if isinstance(node, yaml.ScalarNode) else ""


def _parts(root: yaml.Node) -> Iterator[yaml.Node]:
    """The parts of a config dump that are in use, each once: the bootstrap repeats what has a dump of its own."""
    dumps = items(field(root, "configs"))
    if not dumps:
        yield root
        return
    has_listeners = any(is_kind(text(field(dump, "@type")), "ListenersConfigDump") for dump in dumps)
    for dump in dumps:
        if has_listeners and is_kind(text(field(dump, "@type")), "BootstrapConfigDump"):
            continue
        for state, value in members(dump):
            if text(state) in _NOT_IN_USE:  # of `/config_dump?resource=dynamic_listeners`
                continue
            if has_listeners and text(state) == "static_route_configs":
                continue  # they stand in their listeners
            for item in items(value) or [value]:
                yield from (member for name, member in members(item) if text(name) not in _NOT_IN_USE)
