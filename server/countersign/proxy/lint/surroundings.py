"""What is wrong around the filter: the connection manager's reading of requests, its other filters, its TLS."""

from collections.abc import Mapping
from typing import Final

import yaml

from countersign.core.identity import PeerSource, XfccMode
from countersign.core.posture import Posture
from countersign.edge.addresses import TcpAddress
from countersign.policy.problems import Severity
from countersign.proxy.lint.chains import HttpFilter, Manager
from countersign.proxy.lint.codes import EnvoyCode
from countersign.proxy.lint.expected import Expected, Finding, Findings, warning
from countersign.proxy.lint.remote_address import check_address
from countersign.proxy.lint.tls import check_tls
from countersign.proxy.lint.tree import field, is_kind, is_true, items, members, text, typed, walk, word

_XFCC_HEADER: Final = "x-forwarded-client-cert"
_XFCC: Final = ("SANITIZE", "FORWARD_ONLY", "APPEND_FORWARD", "SANITIZE_SET", "ALWAYS_FORWARD_ONLY")
_ESCAPED: Final = (
    "IMPLEMENTATION_SPECIFIC_DEFAULT", "KEEP_UNCHANGED", "REJECT_REQUEST", "UNESCAPE_AND_REDIRECT",
    "UNESCAPE_AND_FORWARD",
)  # fmt: skip
_UNDERSCORES: Final = ("ALLOW", "REJECT_REQUEST", "DROP_HEADER")
# Filters that can write the headers or the route of a request, by their messages.
_WRITERS: Final = frozenset(
    {
        "Lua", "ExternalProcessor", "Wasm", "HeaderMutation", "GrpcJsonTranscoder", "GrpcJsonReverseTranscoder",
        "DynamicModuleFilter",
    }
)  # fmt: skip
_GO: Final = "golang.v3alpha.Config"
_CACHES: Final = frozenset({"CacheConfig", "CacheV2Config"})


def check_manager(manager: Manager, expected: Expected, secrets: Mapping[str, yaml.Node]) -> Findings:
    """A connection manager with a filter that asks."""
    yield from _reading(manager.config, expected)
    yield from check_address(manager, expected)
    yield from _header(manager.config, expected)
    yield from check_order(manager.filters)
    if expected.peer is not PeerSource.PRINCIPAL:
        yield from _identity(manager.filters)
    if manager.tls is not None:
        yield from check_tls(manager.tls, secrets)


def _reading(config: yaml.Node, expected: Expected) -> Findings:
    # Strict judges the harsher reading of an ambiguous path; `istio` the one that Envoy hands over.
    severity = Severity.ERROR if expected.posture is Posture.ISTIO else Severity.WARNING
    what = "policies and the application may read it differently"
    for code, name in ((EnvoyCode.PATH_AS_SENT, "normalize_path"), (EnvoyCode.SLASHES_AS_SENT, "merge_slashes")):
        if not is_true(node := field(config, name)):
            yield Finding(code, node or config, f"no `{name}`: {what}", f"{name}: true", severity)
    node = field(config, "path_with_escaped_slashes_action")
    if word(node, _ESCAPED) in {"IMPLEMENTATION_SPECIFIC_DEFAULT", "KEEP_UNCHANGED"}:
        fix = "path_with_escaped_slashes_action: REJECT_REQUEST"
        yield Finding(EnvoyCode.ESCAPED_SLASHES, node or config, f"%2F and %5C in a path pass: {what}", fix, severity)
    node = field(config, "common_http_protocol_options", "headers_with_underscores_action")
    if word(node, _UNDERSCORES) == "ALLOW":
        why = "`x_user` passes where `x-user` is guarded, and many applications read both as one"
        fix = "common_http_protocol_options: {headers_with_underscores_action: REJECT_REQUEST}"
        yield warning(EnvoyCode.UNDERSCORES, node or config, why, fix)
    for name in ("strip_matching_host_port", "strip_any_host_port"):
        if is_true(node := field(config, name)):
            why = "the port is cut off the host before the check: a policy for `a.example:8443` never matches"
            yield warning(EnvoyCode.PORT_STRIPPED, node or config, why, f"remove `{name}`, or write hosts without port")


def _header(config: yaml.Node, expected: Expected) -> Findings:
    """What is said of every request, and by a matcher of some."""
    yield from _header_as(config, expected)
    matcher = field(config, "forward_client_cert_matcher")
    for each in () if matcher is None else walk(matcher):
        kind, action = typed(each)
        if is_kind(kind, "ForwardClientCertConfig") and action is not None:
            yield from _header_as(action, expected)


def _header_as(config: yaml.Node, expected: Expected) -> Findings:
    node = field(config, "forward_client_cert_details")
    where, mode = node or config, word(node, _XFCC)
    reads = expected.peer is not PeerSource.PRINCIPAL
    if mode in {"FORWARD_ONLY", "ALWAYS_FORWARD_ONLY"}:
        why = f"{mode}: a client writes into x-forwarded-client-cert who it is"
        yield Finding(EnvoyCode.HEADER_FORWARDED, where, why, "forward_client_cert_details: APPEND_FORWARD")
        return
    if not reads:
        return
    if mode == "SANITIZE":
        if expected.peer is PeerSource.XFCC:
            why = "SANITIZE removes x-forwarded-client-cert, and --peer xfcc reads nothing else: nobody is anybody"
            yield Finding(EnvoyCode.HEADER_UNFIT, where, why, "forward_client_cert_details: SANITIZE_SET")
        return
    if mode == "APPEND_FORWARD" and expected.xfcc_mode is XfccMode.SANITIZE_SET:
        why = "APPEND_FORWARD under --xfcc-mode sanitize_set: whoever sends the header is refused"
        yield Finding(EnvoyCode.HEADER_UNFIT, where, why, "--xfcc-mode append_forward, or SANITIZE_SET here")
    details = field(config, "set_current_client_cert_details")
    if not is_true(field(details, "uri")):
        why = "x-forwarded-client-cert does not name the peer: its hash proves nothing, and --peer xfcc finds nobody"
        severity = Severity.ERROR if expected.peer is PeerSource.XFCC else Severity.WARNING
        fix = "set_current_client_cert_details: {uri: true}"
        yield Finding(EnvoyCode.HEADER_UNFIT, details or config, why, fix, severity)


def _identity(filters: tuple[HttpFilter, ...]) -> Findings:
    """Filters before the check that may write who the peer is, after Envoy has; what they say is searched, not read."""
    first = next(index for index, each in enumerate(filters) if each.asks)
    for each in filters[:first]:
        nodes = [] if each.config is None else list(walk(each.config))
        said = [field(node, "header", "key") for node in nodes] if is_kind(each.kind, "HeaderMutation") else nodes
        if _writes(each.kind) and any(_XFCC_HEADER in text(node).lower() for node in said):
            why = f"`{each.name}` may write into {_XFCC_HEADER} who the peer is, from what a client says"
            yield warning(EnvoyCode.HEADER_FORWARDED, each.node, why, "leave that header to Envoy")


def check_order(filters: tuple[HttpFilter, ...]) -> Findings:
    """The filters of a manager, or of an upgrade, of which one asks."""
    first = next(index for index, each in enumerate(filters) if each.asks)
    for index, each in enumerate(filters):
        kind = each.kind
        if each.asks and each.wrapped:
            why = "the check is inside another filter, which decides whether it is made"
            yield Finding(EnvoyCode.ASKED_SOMETIMES, each.node, why, "make it a filter of its own")
        if index < first and is_kind(kind, "Router"):
            why = "behind the router no filter is reached: Envoy refuses the file"
            yield Finding(EnvoyCode.BEHIND_ROUTER, filters[first].node, why, "put it before the router")
        if index < first and any(is_kind(name, *_CACHES) for name in (kind, *each.may_be)):
            why = f"`{each.name}` before the check answers whoever asks, and fetches what it lacks without a check"
            yield Finding(EnvoyCode.ANSWERED_BEFORE, each.node, why, "put it after the check")
        if index < first and is_kind(kind, "RBAC") and field(each.config, "rules") is not None:
            why = f"`{each.name}` denies before Countersign is asked: it can explain none of that"
            yield warning(EnvoyCode.JUDGED_BEFORE, each.node, why, "leave its policies to Countersign")
        if index > first and not each.asks:
            yield from _after(each)


def _after(each: HttpFilter) -> Findings:
    fix = "put it before the check"
    inside = [] if each.config is None else [typed(node)[0] for node in walk(each.config)]  # of the router: upstream
    if any(_writes(kind) for kind in (each.kind, *each.may_be, *inside)):
        why = f"`{each.name}` after the check can change what was judged: path, headers or route"
        yield Finding(EnvoyCode.CHANGED_AFTERWARDS, each.node, why, fix)
    elif each.config is not None and any(is_true(field(node, "clear_route_cache")) for node in walk(each.config)):
        why = f"`{each.name}` after the check chooses the route anew"
        yield Finding(EnvoyCode.CHANGED_AFTERWARDS, each.node, why, f"{fix}, or clear_route_cache: false")
    elif any(is_kind(kind, "JwtAuthentication") for kind in (each.kind, *each.may_be)):
        why = f"`{each.name}` after the check writes headers and metadata that policies do not see"
        yield warning(EnvoyCode.CHANGED_AFTERWARDS, each.node, why, f"{fix}; Countersign verifies tokens itself")


def check_upstream(cluster: yaml.Node) -> Findings:
    """The filters that a cluster has of its own: requests pass them after every check."""
    for _, options in members(field(cluster, "typed_extension_protocol_options")):
        for each in items(field(options, "http_filters")):
            if any(_writes(typed(node)[0]) for node in walk(each)):
                why = f"`{text(field(each, 'name'))}` of a cluster can change what was judged: path or headers"
                yield Finding(EnvoyCode.CHANGED_AFTERWARDS, each, why, "put it before the check")


def check_admin(root: yaml.Node) -> Findings:
    """The admin interface of a bootstrap, or of the one in a config dump."""
    for bootstrap in (root, *(field(each, "bootstrap") for each in items(field(root, "configs")))):
        address = field(bootstrap, "admin", "address", "socket_address", "address")
        if address is not None and not TcpAddress(text(address), 0).is_loopback:
            why = "whoever reaches the admin interface can stop Envoy, change its runtime and read its configuration"
            yield warning(EnvoyCode.ADMIN_OPEN, address, why, "address: 127.0.0.1, or a pipe")


def _writes(kind: str) -> bool:
    return is_kind(kind, *_WRITERS) or kind.endswith(_GO)
