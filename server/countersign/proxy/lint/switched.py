"""Whether a filter that is switched off is switched on again by each route, as Envoy Gateway writes it.

Source: `HttpFilter.disabled` (envoy/extensions/filters/network/http_connection_manager/v3): a filter that is off is
switched on by its settings in `typed_per_filter_config`; those of the route count before those of its virtual host, and
these before those of the route configuration.
"""

from collections.abc import Iterator, Sequence

import yaml

from countersign.proxy.lint.chains import Manager
from countersign.proxy.lint.codes import EnvoyCode
from countersign.proxy.lint.expected import Finding, Findings
from countersign.proxy.lint.routes import configurations_of
from countersign.proxy.lint.tree import field, items, members, text


def check_switched(manager: Manager, configurations: Sequence[yaml.Node]) -> Findings:
    """A connection manager; ``configurations`` are those of the whole file, of which it may name one."""
    off = [each for each in manager.filters if each.asks and each.disabled]
    if not off:
        return
    found = configurations_of(manager, configurations)
    if not found or any(field(host, "matcher") is not None for each in found for host in _hosts(each)):
        why = "the filter is there and off: only routes that switch it on are checked"
        for each in off:
            yield Finding(EnvoyCode.SWITCHED_OFF, each.node, why, "remove `disabled`")
        return
    names = [each.name for each in off]
    for configuration in found:
        for route, layers in _routes(configuration):
            if not any(_is_said(name, layers) for name in names):
                why = "the filter is off, and this route does not switch it on: everything passes"
                fix = "remove `disabled` at the filter, or switch it on in `typed_per_filter_config`"
                yield Finding(EnvoyCode.SWITCHED_OFF, route, why, fix)


def _hosts(configuration: yaml.Node) -> Sequence[yaml.Node]:
    return items(field(configuration, "virtual_hosts"))


def _routes(configuration: yaml.Node) -> Iterator[tuple[yaml.Node, tuple[yaml.Node, ...]]]:
    """Each route, and what may switch the filter on for it."""
    for host in _hosts(configuration):
        for route in items(field(host, "routes")):
            yield route, (route, host, configuration)


def _is_said(name: str, layers: Sequence[yaml.Node]) -> bool:
    """Whether there are settings; those that say `disabled` are a finding of their own."""
    settings = (entry for layer in layers for entry in members(field(layer, "typed_per_filter_config")))
    return any(text(key) == name for key, _ in settings)
