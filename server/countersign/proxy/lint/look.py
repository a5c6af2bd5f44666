"""Judges an Envoy configuration: YAML or JSON, a bootstrap, a part of one, or the admin interface's `/config_dump`."""

from dataclasses import dataclass, replace
from typing import Final

import yaml

from countersign.policy.problems import Code, Position, Problem
from countersign.policy.reading.document import Report, documents
from countersign.proxy.lint.beside import check_tcp
from countersign.proxy.lint.callout import (
    asked_cluster,
    assigned,
    check_any_filter,
    check_cluster,
    check_filter,
    check_route,
)
from countersign.proxy.lint.chains import Manager
from countersign.proxy.lint.codes import EnvoyCode
from countersign.proxy.lint.expected import Expected, Finding, Findings, warning
from countersign.proxy.lint.find import Found, find
from countersign.proxy.lint.routes import check_routes
from countersign.proxy.lint.surroundings import check_admin, check_manager, check_order, check_upstream
from countersign.proxy.lint.switched import check_switched
from countersign.proxy.lint.tree import camel, field, members, text, walk

__all__ = ["Expected", "Seen", "look"]

_BYTES: Final = 10 * 1024 * 1024
_ISTIOS_OWN: Final = frozenset({"prometheus_stats", "agent"})  # clusters of every Istio sidecar's bootstrap
_FROM_AFAR: Final = (
    "routes, listeners, filters or endpoints come from a management server and are not in this file; "
    "look at /config_dump?include_eds of the running Envoy too"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What was found, by position, and how many connection managers were looked at."""

    problems: tuple[Problem, ...]
    managers: int = 0
    notes: tuple[str, ...] = ()


def look(octets: bytes, name: str, expected: Expected) -> Seen:
    """Every problem of a file. What cannot be read is a problem too; nothing is raised."""
    content = octets[: _BYTES + 1].decode("utf-8", "replace")
    if content.lstrip()[:1] in {"{", "["}:
        content = content.replace("\t", " ")  # JSON may be indented so, YAML not
    report = Report(name, content.splitlines())
    if "\ufffd" in content or len(octets) > _BYTES:
        report.error(Position(name, 1, 1), Code.SYNTAX, f"not UTF-8, or larger than {_BYTES} bytes")
        return _seen(report)
    roots = list(documents(content, report))
    if len(roots) > 1:
        report.error(roots[1], Code.SYNTAX, "a second document", "one file has one configuration")
    elif roots and not report.problems:
        return _judge(roots[0], report, expected)
    elif not report.problems:
        report.error(Position(name, 1, 1), Code.SYNTAX, "an empty file")
    return _seen(report)


def _judge(root: yaml.Node, report: Report, expected: Expected) -> Seen:
    if not isinstance(root, yaml.MappingNode):
        report.error(root, Code.WRONG_TYPE, "an Envoy configuration is an object")
        return _seen(report)
    _refuse_duplicates(root, report)
    found = find(root)
    for finding in _findings(root, found, expected):
        report.note(finding.severity, finding.node, finding.code, finding.why, finding.fix)
    return _seen(report, managers=len(found.managers), notes=(_FROM_AFAR,) if _is_partial(found) else ())


def _seen(report: Report, managers: int = 0, notes: tuple[str, ...] = ()) -> Seen:
    once = dict.fromkeys(report.problems)  # an alias is looked at wherever it stands
    problems = tuple(sorted(once, key=lambda problem: (problem.position, problem.code)))
    return Seen(problems=problems, managers=managers, notes=notes)


def _refuse_duplicates(root: yaml.Node, report: Report) -> None:
    """Also a field by both of its names: Envoy takes one of the values, and not always the later."""
    for node in walk(root):
        names: set[str] = set()
        for key, _ in members(node):
            name = text(key)
            spelled = {name, camel(name)} if camel(name) != camel(name).lower() else {name}
            if not names.isdisjoint(spelled):
                report.error(key, Code.DUPLICATE_KEY, f"`{name}` is here twice", "keep one of them")
            names |= spelled


def _is_partial(found: Found) -> bool:
    return found.from_afar or any(assigned(each, found.assignments) is None for each in _asked(found))


def _asked(found: Found) -> list[yaml.Node]:
    """The clusters that are asked."""
    http = [each.config for manager in found.managers for each in manager.asking]
    names = {asked_cluster(config) for config in (*http, *found.network_filters)}
    return [cluster for cluster in found.clusters if text(field(cluster, "name")) in names]


def _findings(root: yaml.Node, found: Found, expected: Expected) -> Findings:
    asking = [each for manager in found.managers for each in manager.asking]
    for each in asking:
        if each.config is not None:
            yield from check_filter(each.config)
    for config in found.network_filters:
        yield from check_any_filter(config)
    for manager in found.managers:
        yield from _around(manager, found, expected, asked_elsewhere=bool(asking or found.network_filters))
        for chain in (manager, *(replace(manager, filters=each.filters) for each in manager.upgrades)):
            yield from check_switched(chain, found.route_configurations)
    yield from check_tcp(found)
    yield from check_admin(root)
    for name, settings in found.per_route:
        yield from check_route(name, settings, frozenset(each.name for each in asking))
    for cluster in _asked(found):
        yield from check_cluster(cluster, assigned(cluster, found.assignments))
    for cluster in found.clusters if asking else ():
        yield from check_upstream(cluster)
    if not asking and not found.network_filters:
        fix = "the filter of `countersign envoy-config --part filter`; or give --check a /config_dump"
        yield Finding(EnvoyCode.NOBODY_ASKED, root, "no filter in this file asks an authorizer", fix)


def _around(manager: Manager, found: Found, expected: Expected, *, asked_elsewhere: bool) -> Findings:
    if any(each.asks for each in manager.filters):
        yield from check_manager(manager, expected, found.secrets)
        yield from check_routes(manager, found.route_configurations)
        yield from _upgrades(manager)
    elif asked_elsewhere and not manager.outbound and not _is_istios_own(manager.config):
        fix = "the filter of `countersign envoy-config --part filter`"
        yield warning(EnvoyCode.NOT_ASKED_HERE, manager.config, "requests pass here without a check", fix)


def _upgrades(manager: Manager) -> Findings:
    for each in manager.upgrades:
        if any(filter_.asks for filter_ in each.filters):
            yield from check_order(each.filters)
        else:
            why = "an upgrade has these filters and no others: whoever asks for it passes without a check"
            yield Finding(
                EnvoyCode.UPGRADE_UNASKED, each.config, why, "remove its `filters`, or put the check there too"
            )


def _is_istios_own(config: yaml.Node) -> bool:
    """Whether only the metrics and the readiness of Istio's proxy are to be had there."""
    routes = [field(node, "route") for node in walk(config) if field(node, "match") is not None]
    return bool(routes) and all(text(field(each, "cluster")) in _ISTIOS_OWN for each in routes)
