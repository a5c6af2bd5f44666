"""What a filter chain has: connection managers with their HTTP filters, proxies of connections, and their TLS.

Source: `Filter` and `HttpFilter` (envoy/config/listener/v3, .../http_connection_manager/v3): either a `typed_config`,
or a `config_discovery` by whose name a management server sends one.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

import yaml

from countersign.proxy.lint.tree import field, is_kind, is_true, items, text, typed, walk

ASKS_OF_TCP: Final = "network.ext_authz.v3.ExtAuthz"


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpFilter:
    """``kind`` is the full name of its message, empty if it is not in the file; ``config`` its fields.

    ``wrapped``: inside another filter. ``from_afar``: a management server may say otherwise; ``may_be`` are the kinds
    of what it may send.
    """

    node: yaml.Node
    name: str
    kind: str
    config: yaml.Node | None
    disabled: bool
    from_afar: bool
    may_be: tuple[str, ...]
    wrapped: bool = False

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
        return tuple(each for chain in self.every_chain for each in chain if each.asks)

    @property
    def every_chain(self) -> tuple[tuple[HttpFilter, ...], ...]:
        """The filters of the manager, and of each upgrade that has its own."""
        return (self.filters, *(each.filters for each in self.upgrades))


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpProxy:
    """Connections that go to a cluster as they come, whether or not Countersign is ``asked`` about them.

    ``before``: the other filters of the chain, which may choose the cluster; their kinds and fields.
    """

    config: yaml.Node
    asked: bool
    before: tuple[tuple[str, yaml.Node | None], ...]
    outbound: bool


def managers_of(chain: yaml.Node, discovered: Mapping[str, yaml.Node], *, outbound: bool) -> Iterator[Manager]:
    """The connection managers of a filter chain; ``discovered``: what a management server sent, by its names."""
    for each in items(field(chain, "filters")):
        manager = _manager(chain, each, discovered, outbound=outbound)
        if manager is not None:
            yield manager


def _manager(
    chain: yaml.Node, filter_: yaml.Node, discovered: Mapping[str, yaml.Node], *, outbound: bool
) -> Manager | None:
    kind, config = typed(given(filter_, discovered))
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
    return Manager(config=config, tls=tls, outbound=outbound, filters=filters, upgrades=upgrades)


def tcp_proxies_of(chain: yaml.Node, discovered: Mapping[str, yaml.Node], *, outbound: bool) -> Iterator[TcpProxy]:
    """The proxies of connections of a filter chain."""
    before: list[tuple[str, yaml.Node | None]] = []
    for each in items(field(chain, "filters")):
        kind, config = typed(given(each, discovered))
        if is_kind(kind, "TcpProxy") and config is not None:
            asked = any(name.endswith(ASKS_OF_TCP) for name, _ in before)
            yield TcpProxy(config=config, asked=asked, before=tuple(before), outbound=outbound)
        before.append((kind, config))


def is_from_afar(filter_: yaml.Node, discovered: Mapping[str, yaml.Node]) -> bool:
    """Whether a management server says what a filter is, and it is not in the file."""
    return field(filter_, "config_discovery") is not None and text(field(filter_, "name")) not in discovered


def given(filter_: yaml.Node, discovered: Mapping[str, yaml.Node]) -> yaml.Node | None:
    """The configuration of a filter: its own, the one that was sent, or until that comes the default."""
    discovery = field(filter_, "config_discovery")
    if discovery is None:
        return field(filter_, "typed_config")
    return discovered.get(text(field(filter_, "name"))) or field(discovery, "default_config")


def _filters(node: yaml.Node | None, discovered: Mapping[str, yaml.Node]) -> tuple[HttpFilter, ...]:
    return tuple(_filter(each, discovered) for each in items(node))


def _filter(node: yaml.Node, discovered: Mapping[str, yaml.Node]) -> HttpFilter:
    name, disabled = text(field(node, "name")), is_true(field(node, "disabled"))
    kind, config = typed(given(node, discovered))
    afar = is_from_afar(node, discovered) or not kind
    urls = items(field(node, "config_discovery", "type_urls")) if afar else ()
    filter_ = HttpFilter(
        node=node,
        name=name,
        kind=kind,
        config=config,
        disabled=disabled,
        from_afar=afar,
        may_be=tuple(text(each).rpartition("/")[2] for each in urls),
    )
    if filter_.asks or config is None:
        return filter_
    inside = [typed(each) for each in walk(config)]
    asked = next(((k, c) for k, c in inside if k.endswith("http.ext_authz.v3.ExtAuthz")), None)
    if asked is None:
        return filter_
    return replace(filter_, kind=asked[0], config=asked[1], wrapped=True)
