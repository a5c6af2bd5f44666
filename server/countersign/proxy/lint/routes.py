"""What of a connection manager's routes matters: where requests go, and what is written from a client's own headers."""

import re
from collections.abc import Sequence
from typing import Final

import yaml

from countersign.proxy.lint.chains import Manager
from countersign.proxy.lint.codes import EnvoyCode
from countersign.proxy.lint.expected import Finding, Findings, warning
from countersign.proxy.lint.tree import field, items, text, walk

# Of a substitution format, what a client says as it likes: a header that is none of the request's own attributes
# (`:path`), the query or a parameter of it, any element of XFCC; or what may be made of these.
_STEERED: Final = re.compile(
    r"%(?:[A-Z_]*(?:REQ|REQUEST_HEADER|QUERY_PARAM)[A-Z_]*\((?!:)|QUERY_PARAMS|XFCC_VALUE\(|CEL\(|COALESCE\()"
)


def configurations_of(manager: Manager, configurations: Sequence[yaml.Node]) -> list[yaml.Node]:
    """Those of a manager; ``configurations`` are all that the file has, of which it may name one."""
    own = field(manager.config, "route_config")
    name = text(field(manager.config, "rds", "route_config_name"))
    return [own] if own is not None else [each for each in configurations if name and text(field(each, "name")) == name]


def check_routes(manager: Manager, configurations: Sequence[yaml.Node]) -> Findings:
    """The routes of a manager with a filter that asks: what they do after the check as a client says."""
    scoped = field(manager.config, "scoped_routes") is not None  # any of the file may be one of a scope
    for configuration in configurations if scoped else configurations_of(manager, configurations):
        for node in walk(configuration):
            yield from _check_action(field(node, "route"))
            for added in items(field(node, "request_headers_to_add")):
                value = field(added, "header", "value")
                if _STEERED.search(text(value)):
                    header = text(field(added, "header", "key"))
                    yield _steered(value or added, "request_headers_to_add", f"`{header}`")


def _check_action(action: yaml.Node | None) -> Findings:
    clusters = (action, *items(field(action, "weighted_clusters", "clusters")))
    for name, what, written in (
        *(("cluster_header", "the cluster", field(each, "cluster_header")) for each in clusters),
        ("host_rewrite_header", "the host", field(action, "host_rewrite_header")),
        ("host_rewrite_path_regex", "the host", field(action, "host_rewrite_path_regex")),
    ):
        if written is not None:
            yield _steered(written, name, what)
    for name, what in (("path_rewrite", "the path"), ("host_rewrite", "the host")):
        written = field(action, name)
        if written is not None and _STEERED.search(text(written)):
            yield _steered(written, name, what)


def _steered(node: yaml.Node, name: str, what: str) -> Finding:
    why = f"`{name}` takes {what} from what a client says, after the check: what is done is not what was judged"
    return warning(EnvoyCode.CHANGED_AFTERWARDS, node, why, "take it from a header that a token fills, or write it out")
