"""Finds in a bootstrap, a resource or a `/config_dump` what decides whether and what Countersign is asked."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

import yaml

from countersign.proxy.lint.tree import field, is_kind, is_true, items, members, text, typed, walk

_NOT_IN_USE = frozenset({"draining_state", "error_state"})  # of a config dump
_OF_CLUSTERS: Final = ("load_assignment", "eds_cluster_config", "cluster_type")
_ASKS_OF_TCP: Final = "network.ext_authz.v3.ExtAuthz"
_FETCHED: Final = frozenset({"rds", "lds_config", "scoped_routes"})  # a dump has what came of them


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpFilter:
    """``kind`` is the full name of its message, empty if it is not in the file; ``config`` its fields.

    ``wrapped``: inside another filter. ``from_afar``: a management server may say otherwise.
    """

    node: yaml.Node
    name: str
    kind: str
    config: yaml.Node | None
    wrapped: bool = False
    disabled: bool = False
    from_afar: bool = False

    @property
    def asks(self) -> bool:
        """Whether it is an external authorization."""
        return self.kind.endswith(".ext_authz.v3.ExtAuthz")


@dataclass(frozen=True, slots=True, kw_only=True)
class Upgrade:
    """What of `upgrade_configs` has filters of its own: they stand for those of the manager, not beside them."""

    config: yaml.Node
    filters: tuple[HttpFilter, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manager:
    """An HTTP connection manager, the TLS of its filter chain, and whether requests leave the machine by it."""

    config: yaml.Node
    tls: yaml.Node | None
    outbound: bool
    filters: tuple[HttpFilter, ...]
    upgrades: tuple[Upgrade, ...] = ()

    @property
    def asking(self) -> tuple[HttpFilter, ...]:
        """The filters that ask, those of upgrades too."""
        chains = (self.filters, *(each.filters for each in self.upgrades))
        return tuple(each for chain in chains for each in chain if each.asks)


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpProxy:
    """Connections that go to a cluster as they come, whether or not Countersign is ``asked`` about them."""

    config: yaml.Node
    asked: bool
    outbound: bool


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
        if text(field(each, "traffic_direction")).upper() in {"OUTBOUND", "2"}
        for chain in walk(each)
    }
    extensions = [node for node in nodes if is_kind(typed(node)[0], "TypedExtensionConfig")]
    discovered = _named("name", "typed_config", extensions)
    managers = [
        _manager(chain, filter_, outbound, discovered) for chain in chains for filter_ in items(field(chain, "filters"))
    ]
    per_route = [entry for node in nodes for entry in members(field(node, "typed_per_filter_config"))]
    fetched = field(root, "configs") is None and not _FETCHED.isdisjoint(map(_key, nodes))
    return Found(
        managers=tuple(each for each in managers if each is not None),
        network_filters=tuple(node for node in nodes if typed(node)[0].endswith(_ASKS_OF_TCP)),
        tcp_proxies=tuple(_tcp_proxies(chains, outbound)),
        per_route=tuple((text(name), settings) for name, settings in per_route),
        clusters=tuple(node for node in nodes if any(field(node, name) is not None for name in _OF_CLUSTERS)),
        route_configurations=tuple(node for node in nodes if field(node, "virtual_hosts") is not None),
        assignments=_named("cluster_name", "endpoints", nodes),
        secrets=_named("name", "validation_context", nodes),
        from_afar=fetched or any(each.from_afar for manager in managers if manager for each in manager.filters),
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


def _manager(
    chain: yaml.Node, filter_: yaml.Node, outbound: set[int], discovered: Mapping[str, yaml.Node]
) -> Manager | None:
    kind, config = typed(field(filter_, "typed_config"))
    if not is_kind(kind, "HttpConnectionManager") or config is None:
        return None
    _, socket = typed(field(chain, "transport_socket", "typed_config"))
    tls = field(socket, "downstream_tls_context") or socket  # QUIC has it inside
    upgrades = tuple(
        Upgrade(config=each, filters=_filters(field(each, "filters"), discovered))
        for each in items(field(config, "upgrade_configs"))
        if items(field(each, "filters"))
    )
    filters = _filters(field(config, "http_filters"), discovered)
    return Manager(config=config, tls=tls, outbound=id(chain) in outbound, filters=filters, upgrades=upgrades)


def _tcp_proxies(chains: Iterable[yaml.Node], outbound: set[int]) -> Iterator[TcpProxy]:
    for chain in chains:
        asked = False
        for each in items(field(chain, "filters")):
            kind, config = typed(field(each, "typed_config"))
            asked = asked or kind.endswith(_ASKS_OF_TCP)
            if is_kind(kind, "TcpProxy") and config is not None:
                yield TcpProxy(config=config, asked=asked, outbound=id(chain) in outbound)


def _filters(node: yaml.Node | None, discovered: Mapping[str, yaml.Node]) -> tuple[HttpFilter, ...]:
    return tuple(_filter(each, discovered) for each in items(node))


def _filter(node: yaml.Node, discovered: Mapping[str, yaml.Node]) -> HttpFilter:
    name, disabled = text(field(node, "name")), is_true(field(node, "disabled"))
    discovery = field(node, "config_discovery")
    given = field(node, "typed_config") if discovery is None else discovered.get(name)
    kind, config = typed(given or field(discovery, "default_config"))
    filter_ = HttpFilter(node=node, name=name, kind=kind, config=config, disabled=disabled, from_afar=given is None)
    if filter_.asks or config is None:
        return filter_
    inside = [typed(each) for each in walk(config)]
    asked = next(((k, c) for k, c in inside if k.endswith("http.ext_authz.v3.ExtAuthz")), None)
    if asked is None:
        return filter_
    return replace(filter_, kind=asked[0], config=asked[1], wrapped=True)
