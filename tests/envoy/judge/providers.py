"""MeshConfig's ``extensionProviders`` as the ext_authz filter that a CUSTOM policy brings.

Input is plain YAML data. Source: istio.io "Global Mesh Options"; pilot/pkg/security/authz/builder/extauthz.go.
"""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Final

from tests.envoy.judge.matchers import Json

STAT_PREFIX: Final = "istio_ext_authz_"  # what the shadow rules of RBAC report under
POLICY_PREFIX: Final = "istio-ext-authz-"
_HTTP: Final = "envoyExtAuthzHttp"
_GRPC: Final = "envoyExtAuthzGrpc"
_TYPE: Final = "type.googleapis.com/envoy.extensions.filters.{layer}.ext_authz.v3.ExtAuthz"
_TIMEOUT: Final = "600s"
_MAX_PORT: Final = 65535


class ProviderError(ValueError):
    """A provider that is unknown, or that cannot be asked as it is configured: its policies deny."""


def ext_authz(name: str, known: Mapping[str, Json], *, tcp: bool) -> Json | None:
    """The filter that asks a provider where its policies match; None if it does not speak TCP. Or `ProviderError`."""
    provider = known.get(name)
    if provider is None:
        raise ProviderError(f"no provider {name}")
    kind = _GRPC if _GRPC in provider else _HTTP
    config = provider[kind]
    status = _status(config)
    if tcp:
        return _tcp(name, config) if kind == _GRPC else None
    asks = {"grpcService": _grpc_service(config)} if kind == _GRPC else _http_service(config)
    clears = {"clearRouteCache": True} if config.get("clearRouteCache") else {}
    typed = {"@type": _TYPE.format(layer="http"), **_common(name, config, "http"), **asks, **status, **clears}
    return {"name": "envoy.filters.http.ext_authz", "typedConfig": typed | _body(config)}


def _tcp(name: str, config: Json) -> Json:
    typed = {"@type": _TYPE.format(layer="network"), "statPrefix": "tcp.", **_common(name, config, "network")}
    return {"name": "envoy.filters.network.ext_authz", "typedConfig": {**typed, "grpcService": _grpc_service(config)}}


def _common(name: str, config: Json, layer: str) -> Json:
    """On both layers: the filter asks only where RBAC has left the name of one of the provider's policies."""
    matched = {
        "filter": f"envoy.filters.{layer}.rbac",
        "path": [{"key": f"{STAT_PREFIX}shadow_effective_policy_id"}],
        "value": {"stringMatch": {"prefix": f"{POLICY_PREFIX}{name}"}},
    }
    fails_open = {"failureModeAllow": True} if config.get("failOpen") else {}
    return {"transportApiVersion": "V3", "filterEnabledMetadata": matched, **fails_open}


def _status(config: Json) -> Json:
    code = config.get("statusOnError", "")
    if not code:
        return {}
    try:
        phrase = HTTPStatus(int(code)).phrase
    except ValueError as error:
        raise ProviderError(f"{code} is no status") from error
    return {"statusOnError": {"code": phrase.replace(" ", "")}}


def _host_and_cluster(config: Json) -> tuple[str, str]:
    """``service`` is a host, or ``namespace/host``."""
    host, port = config["service"].rpartition("/")[2], config["port"]
    if not 0 < port <= _MAX_PORT:
        raise ProviderError(f"{port} is no port")
    return host, f"outbound|{port}||{host}"


def _grpc_service(config: Json) -> Json:
    host, cluster = _host_and_cluster(config)
    return {
        "envoyGrpc": {"authority": host, "clusterName": cluster},
        "timeout": config.get("timeout", _TIMEOUT),
    }


def _http_service(config: Json) -> Json:
    host, cluster = _host_and_cluster(config)
    prefix = config.get("pathPrefix", "")
    if prefix and not prefix.startswith("/"):
        raise ProviderError(f"{prefix} is no path")
    service: Json = {
        "serverUri": {"cluster": cluster, "timeout": config.get("timeout", _TIMEOUT), "uri": f"http://{host}"}
    }
    if prefix:
        service["pathPrefix"] = prefix
    added = config.get("includeAdditionalHeadersInCheck") or {}
    if added:
        headers = [{"key": name, "value": added[name]} for name in sorted(added)]
        service["authorizationRequest"] = {"headersToAdd": headers}
    answered = {
        theirs: _patterns(config[ours])
        for ours, theirs in (
            ("headersToUpstreamOnAllow", "allowedUpstreamHeaders"),
            ("headersToDownstreamOnAllow", "allowedClientHeadersOnSuccess"),
            ("headersToDownstreamOnDeny", "allowedClientHeaders"),
        )
        if config.get(ours)
    }
    if answered:
        service["authorizationResponse"] = answered
    asked = config.get("includeRequestHeadersInCheck")
    return {"httpService": service} | ({"allowedHeaders": _patterns(asked)} if asked else {})


def _patterns(values: Sequence[str]) -> Json:
    return {"patterns": [_pattern(value) for value in values]}


def _pattern(value: str) -> Json:
    if value.endswith("*"):
        return {"prefix": value[:-1], "ignoreCase": True}
    if value.startswith("*"):
        return {"suffix": value[1:], "ignoreCase": True}
    return {"exact": value, "ignoreCase": True}


def _body(config: Json) -> Json:
    body = config.get("includeRequestBodyInCheck")
    if not body:
        return {}
    settings = {"maxRequestBytes": body.get("maxRequestBytes", 0)}
    settings |= {name: True for name in ("allowPartialMessage", "packAsBytes") if body.get(name)}
    return {"withRequestBody": settings}
