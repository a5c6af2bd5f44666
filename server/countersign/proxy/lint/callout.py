"""What is wrong with an ext_authz filter, its per-route settings, and the cluster that it asks."""

from collections.abc import Iterator, Mapping
from typing import Final

import yaml

from countersign.edge.addresses import TcpAddress
from countersign.policy.workload import WorkloadError, refuse_unknown, refuse_unreadable
from countersign.proxy.lint.codes import EnvoyCode
from countersign.proxy.lint.expected import Finding, Findings, warning
from countersign.proxy.lint.tree import field, is_kind, is_true, items, members, seconds, text, typed, walk, word

_SHORTEST, _LONGEST = 0.16, 1.0  # seconds: a check is held for keys up to 0.15 s; longer waits only queue
_HTTP2: Final = (
    ("explicit_http_config", "http2_protocol_options"),
    ("auto_config",),
    ("use_downstream_protocol_config",),
)
_REDACTED: Final = "[redacted]"  # what the admin interface says of `context_extensions`
_ISTIO_CUSTOM: Final = "envoy.filters.http.rbac"
_WANTED: Final = (
    (
        EnvoyCode.HEADERS_JOINED,
        "encode_raw_headers",
        "header lines arrive joined and repaired: two look like one, and what is no text looks like `!`",
    ),
    (
        EnvoyCode.CERTIFICATE_WITHHELD,
        "include_peer_certificate",
        "the peer's certificate is not shown: principal and XFCC cannot be held against it",
    ),
    (
        EnvoyCode.SERVER_NAME_WITHHELD,
        "include_tls_session",
        "the server name is not shown: `connection.sni` in policies is unreadable",
    ),
    (
        EnvoyCode.MUTATIONS_UNCHECKED,
        "validate_mutations",
        "an answer with an invalid header is applied in part, not refused",
    ),
)


def check_filter(config: yaml.Node) -> Findings:
    """An HTTP filter that asks."""
    yield from check_any_filter(config)
    for name in ("allowed_headers", "disallowed_headers"):
        if (node := field(config, name)) is not None:
            why = f"`{name}` keeps headers from Countersign: a DENY on one of them never fires"
            yield Finding(EnvoyCode.HEADERS_WITHHELD, node, why, f"remove `{name}`")
    if is_true(node := field(config, "clear_route_cache")):
        why = "the route is chosen anew after the check: the one that is taken is not the one that was judged"
        yield Finding(EnvoyCode.ROUTE_CLEARED, node or config, why, "clear_route_cache: false")
    rules = field(config, "decoder_header_mutation_rules")
    if rules is not None and not is_true(field(rules, "disallow_is_error")):
        why = "headers that Countersign writes or removes may be passed over: a client's own reach the application"
        yield Finding(EnvoyCode.MUTATIONS_REFUSED, rules, why, "remove `decoder_header_mutation_rules`")
    yield from _sometimes(config)
    if (node := field(config, "http_service")) is not None:
        yield Finding(EnvoyCode.WRONG_PROTOCOL, node, "Countersign speaks gRPC, not HTTP", "use `grpc_service`")
    version = field(config, "transport_api_version")
    if word(version, ("AUTO", "V2", "V3")) != "V3":
        why = "the API of version 3 is not asked for: Envoy refuses the file, or the call fails"
        yield Finding(EnvoyCode.WRONG_PROTOCOL, version or config, why, "transport_api_version: V3")
    yield from _call(config)
    for code, name, why in _WANTED:
        if not is_true(node := field(config, name)):
            yield warning(code, node or config, why, f"{name}: true")
    if (node := field(config, "with_request_body")) is not None:
        why = "bodies are buffered and sent, Countersign looks at none, and larger ones are answered 413"
        yield warning(EnvoyCode.BODY_SENT, node, why, "remove `with_request_body`")


def check_any_filter(config: yaml.Node) -> Findings:
    """What holds for the HTTP filter and for that of TCP."""
    if is_true(node := field(config, "failure_mode_allow")):
        why = "requests pass unjudged whenever Countersign does not answer"
        yield Finding(EnvoyCode.FAILS_OPEN, node or config, why, "failure_mode_allow: false")
    if is_true(node := field(config, "shadow_mode")):
        why = "denials are only noted: every request passes"
        yield Finding(EnvoyCode.SHADOW_ONLY, node or config, why, "remove `shadow_mode`; a policy can be a dry run")


def _sometimes(config: yaml.Node) -> Findings:
    denied = field(config, "deny_at_disable")
    if is_true(field(denied, "default_value")) and field(denied, "runtime_key") is None:
        return  # what is not checked is denied
    enabled = field(config, "filter_enabled")
    always = text(field(enabled, "default_value", "numerator")) == "100" and text(
        field(enabled, "default_value", "denominator")
    ) in {"", "HUNDRED", "0"}
    if enabled is not None and (not always or field(enabled, "runtime_key") is not None):
        why = "only some requests are checked, or a runtime key can decide so"
        yield Finding(EnvoyCode.ASKED_SOMETIMES, enabled, why, "remove `filter_enabled`")
    if (node := field(config, "filter_enabled_metadata")) is not None:
        if text(field(node, "filter")) == _ISTIO_CUSTOM:
            why = "only requests that Istio's CUSTOM policies match are checked"
            yield warning(EnvoyCode.ASKED_SOMETIMES, node, why, "let one CUSTOM policy match everything: rules: [{}]")
        else:
            why = "only requests with such metadata are checked"
            yield Finding(EnvoyCode.ASKED_SOMETIMES, node, why, "remove `filter_enabled_metadata`")


def _call(config: yaml.Node) -> Findings:
    service = field(config, "grpc_service")
    timeout = field(service, "timeout")
    if timeout is None:
        why = "no timeout is set: Envoy's own default decides how long a request waits"
        yield warning(EnvoyCode.TIMEOUT, service or config, why, "timeout: 0.25s")
    elif (wait := seconds(timeout)) is None or not _SHORTEST <= wait <= _LONGEST:
        late = wait is not None and 0 < wait < _SHORTEST
        why = "shorter than the 0.15 s that a check may wait for keys" if late else "requests queue up behind an outage"
        yield warning(EnvoyCode.TIMEOUT, timeout, f"the timeout `{text(timeout)}`: {why}", "timeout: 0.25s")
    code = field(config, "status_on_error", "code")
    if text(code) not in {"ServiceUnavailable", "503"}:
        why = "an outage does not look like one: without an answer Envoy says 403, or what stands here"
        yield warning(EnvoyCode.STATUS_ON_ERROR, code or config, why, "status_on_error: {code: ServiceUnavailable}")


def check_route(name: str, settings: yaml.Node, asking: frozenset[str]) -> Findings:
    """What a virtual host or route says about a filter; ``asking`` are the names of those that ask."""
    kind, config = typed(settings)
    if is_kind(kind, "FilterConfig") and name in asking and is_true(node := field(config, "disabled")):
        yield _switched_off(node or settings)
    for each in walk(settings) if is_kind(kind, "FilterConfig") else [settings]:
        inner, config = typed(each)
        if is_kind(inner, "ExtAuthzPerRoute") and config is not None:
            yield from _per_route(config)


def _switched_off(node: yaml.Node) -> Finding:
    return Finding(EnvoyCode.SWITCHED_OFF, node, "Countersign is not asked here: everything passes", "remove it")


def _per_route(config: yaml.Node) -> Findings:
    if is_true(node := field(config, "disabled")):
        yield _switched_off(node or config)
    settings = field(config, "check_settings")
    for name in ("grpc_service", "http_service"):
        if (node := field(settings, name)) is not None:
            why = "here another server is asked than the filter's"
            yield warning(EnvoyCode.OTHER_AUTHORIZER, node, why, f"remove `{name}`")
    extensions = field(settings, "context_extensions")
    said = {text(key): text(value) for key, value in members(extensions)}
    try:
        refuse_unknown(said)
        refuse_unreadable({key: value for key, value in said.items() if value != _REDACTED})
    except WorkloadError as error:
        why = f"every request is denied as workload-unknown: {error}"
        yield Finding(EnvoyCode.WORKLOAD_UNREADABLE, extensions or config, why, "see docs/workloads.md")


def asked_cluster(config: yaml.Node | None) -> str:
    """The name of the cluster that a filter asks; empty if it is none."""
    return text(field(config, "grpc_service", "envoy_grpc", "cluster_name"))


def assigned(cluster: yaml.Node, assignments: Mapping[str, yaml.Node]) -> yaml.Node | None:
    """The endpoints of a cluster; None if a management server gives them, and the file does not have them."""
    service = text(field(cluster, "eds_cluster_config", "service_name"))
    return field(cluster, "load_assignment", "endpoints") or assignments.get(service or text(field(cluster, "name")))


def check_cluster(cluster: yaml.Node, endpoints: yaml.Node | None) -> Findings:
    """A cluster that is asked."""
    options = [typed(value) for _, value in members(field(cluster, "typed_extension_protocol_options"))]
    http2 = any(field(value, *path) is not None for _, value in options for path in _HTTP2)
    if not http2 and field(cluster, "http2_protocol_options") is None:
        fix = "explicit_http_config: {http2_protocol_options: {}}, as `countersign envoy-config --part cluster` prints"
        yield Finding(EnvoyCode.WRONG_PROTOCOL, cluster, "gRPC is HTTP/2, and the cluster is not: no call works", fix)
    if not _is_encrypted(cluster):
        for address in _addresses(endpoints):
            host = text(field(address, "address"))
            if not TcpAddress(host, 0).is_loopback:
                why = f"plaintext to `{host}`: whoever is on the way reads tokens and forges answers"
                yield Finding(EnvoyCode.PLAINTEXT_CALLOUT, address, why, "a unix socket, loopback, or mTLS")


def _is_encrypted(cluster: yaml.Node) -> bool:
    """Whether there is TLS; where endpoints choose between TLS and plaintext, as Istio lets them, they are trusted."""
    matches = (field(each, "transport_socket") for each in items(field(cluster, "transport_socket_matches")))
    sockets = [each for each in (field(cluster, "transport_socket"), *matches) if each is not None]
    return any(not text(field(each, "name")).endswith(".raw_buffer") for each in sockets)


def _addresses(endpoints: yaml.Node | None) -> Iterator[yaml.Node]:
    for locality in items(endpoints):
        for endpoint in items(field(locality, "lb_endpoints")):
            address = field(endpoint, "endpoint", "address", "socket_address")
            if address is not None:
                yield address
