"""Whether a client can write the address that policies take for its own (`remoteIpBlocks`, `remote.ip`).

Source: measured on Envoy 1.40, ``tests/envoy/test_findings_address.py``. Envoy appends the connection's address to
x-forwarded-for, and overwrites x-envoy-external-address, only under `use_remote_address`; the latter not even then for
clients that `internal_address_config` calls internal, loopback too where it is empty: what they write stays.
"""

from typing import Final

import yaml

from countersign.proxy.lint.chains import Manager
from countersign.proxy.lint.codes import EnvoyCode
from countersign.proxy.lint.expected import Expected, Finding, Findings, warning
from countersign.proxy.lint.tree import field, is_true, items, text, walk

_EXTERNAL: Final = "x-envoy-external-address"
_USE: Final = "use_remote_address: true"


def check_address(manager: Manager, expected: Expected) -> Findings:
    """A connection manager with a filter that asks."""
    config = manager.config
    if expected.remote_ip_header:
        yield from _header(manager, expected.remote_ip_header)
        return
    used, skipped = field(config, "use_remote_address"), field(config, "skip_xff_append")
    if is_true(skipped) and is_true(used):
        why = "Envoy's own peer is not in x-forwarded-for: --remote-ip-hops reads one entry too far, a client's own"
        fix = "remove it, or use --remote-ip-header"
        node = skipped or config
        if expected.remote_ip_hops:
            yield Finding(EnvoyCode.ADDRESS_WRITTEN, node, why, fix)
        else:
            yield warning(EnvoyCode.ADDRESS_WRITTEN, node, why, fix)
    elif expected.remote_ip_hops and not is_true(used):
        why = (
            "no `use_remote_address`: Envoy's own peer is not in x-forwarded-for, and --remote-ip-hops reads one entry "
            "too far, a client's own"
        )
        yield Finding(EnvoyCode.ADDRESS_WRITTEN, used or config, why, _USE)


def _header(manager: Manager, name: str) -> Findings:
    config = manager.config
    if name == _EXTERNAL:
        used, internal = field(config, "use_remote_address"), field(config, "internal_address_config")
        if not is_true(used):
            why = f"no `use_remote_address`: Envoy leaves `{name}` as a client writes it"
            yield Finding(EnvoyCode.ADDRESS_WRITTEN, used or config, why, _USE)
        elif internal is not None:
            why = f"of the clients that this calls internal Envoy leaves `{name}` as they write it"
            yield Finding(EnvoyCode.ADDRESS_WRITTEN, internal, why, "remove `internal_address_config`")
    elif not any(name in text(each).lower() for node in _writers(manager) for each in walk(node)):
        why = f"nothing before the check writes `{name}`: it is what whoever sends it says, be that a client"
        fix = f"--remote-ip-header {_EXTERNAL}, or a filter that overwrites it"
        yield warning(EnvoyCode.ADDRESS_WRITTEN, config, why, fix)


def _writers(manager: Manager) -> list[yaml.Node]:
    """What of a manager may write headers before the check; a filter is not read, only searched for the name."""
    first = next(index for index, each in enumerate(manager.filters) if each.asks)
    early = items(field(manager.config, "early_header_mutation_extensions"))
    return [*early, *(each.config for each in manager.filters[:first] if each.config is not None)]
