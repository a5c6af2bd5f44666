"""A complete sidecar: mTLS and plaintext in, the check, the application. The same as `envoy/httpbin.yaml`."""

import datetime as dt
from typing import Final

from countersign.core.identity import XfccMode
from countersign.edge.addresses import TcpAddress
from countersign.proxy.callout import (
    application_cluster,
    authorizer_cluster,
    envoy_address,
    ext_authz_filter,
    only,
    own_certificate,
    workload_settings,
)
from countersign.proxy.envoy_api import (
    Any,
    Struct,
    accesslog,
    bootstrap,
    core,
    listener,
    manager,
    matcher,
    route,
    router,
    stream_log,
    tls,
    tls_inspector,
)
from countersign.proxy.sidecar import Sidecar

_ADMIN: Final = TcpAddress("127.0.0.1", 9901)
_XFCC: Final = {
    XfccMode.APPEND_FORWARD: manager.HttpConnectionManagerForwardClientCertDetails.APPEND_FORWARD,
    XfccMode.SANITIZE_SET: manager.HttpConnectionManagerForwardClientCertDetails.SANITIZE_SET,
}
_LOGGED: Final = {
    "request_id": "%REQ(X-REQUEST-ID)%",
    "method": "%REQ(:METHOD)%",
    "path": "%PATH(NQ)%",  # without the query: it may carry a token
    "peer": "%DOWNSTREAM_PEER_URI_SAN%",
    "status": "%RESPONSE_CODE%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "ext_authz": "%DYNAMIC_METADATA(envoy.filters.http.ext_authz)%",
}


def sidecar_bootstrap(sidecar: Sidecar) -> bootstrap.Bootstrap:
    """Everything that `envoy -c` wants."""
    labels = {"labels": dict(sidecar.labels)} if sidecar.labels else {}
    return bootstrap.Bootstrap(
        node=core.Node(id=sidecar.name, cluster=sidecar.name, metadata=Struct.from_dict(labels) if labels else None),
        admin=bootstrap.Admin(address=envoy_address(_ADMIN)),
        static_resources=bootstrap.BootstrapStaticResources(
            listeners=[_listener(sidecar)],
            clusters=[application_cluster(sidecar), authorizer_cluster(sidecar)],
        ),
    )


def _listener(sidecar: Sidecar) -> listener.Listener:
    filters = [
        listener.Filter(name="envoy.filters.network.http_connection_manager", typed_config=Any.pack(_manager(sidecar)))
    ]
    mtls = listener.FilterChain(
        name="mtls",
        filter_chain_match=listener.FilterChainMatch(transport_protocol="tls"),
        transport_socket=_mtls(sidecar),
        filters=filters,
    )
    # Plaintext, as Istio's PERMISSIVE mode accepts it: PeerAuthentication STRICT refuses it with a reason.
    plaintext = listener.FilterChain(
        name="plaintext",
        filter_chain_match=listener.FilterChainMatch(transport_protocol="raw_buffer"),
        filters=filters,
    )
    inspector = listener.ListenerFilter(
        name="envoy.filters.listener.tls_inspector", typed_config=Any.pack(tls_inspector.TlsInspector())
    )
    return listener.Listener(
        name="inbound",
        address=envoy_address(sidecar.listener),
        listener_filters=[inspector],
        filter_chains=[mtls, plaintext],
    )


def _mtls(sidecar: Sidecar) -> core.TransportSocket:
    context = tls.DownstreamTlsContext(
        require_client_certificate=True,
        common_tls_context=tls.CommonTlsContext(
            alpn_protocols=["h2", "http/1.1"],
            tls_params=tls.TlsParameters(tls_minimum_protocol_version=tls.TlsParametersTlsProtocol.TLSv1_3),
            tls_certificates=[own_certificate(sidecar)],
            validation_context=only(sidecar, matcher.StringMatcher(prefix=f"spiffe://{sidecar.trust_domain}/")),
        ),
    )
    return core.TransportSocket(name="envoy.transport_sockets.tls", typed_config=Any.pack(context))


def _manager(sidecar: Sidecar) -> manager.HttpConnectionManager:
    escaped = manager.HttpConnectionManagerPathWithEscapedSlashesAction.REJECT_REQUEST
    underscores = core.HttpProtocolOptionsHeadersWithUnderscoresAction.REJECT_REQUEST
    return manager.HttpConnectionManager(
        stat_prefix="inbound",
        normalize_path=True,
        merge_slashes=True,
        path_with_escaped_slashes_action=escaped,
        common_http_protocol_options=core.HttpProtocolOptions(headers_with_underscores_action=underscores),
        use_remote_address=True,
        max_request_headers_kb=60,
        forward_client_cert_details=_XFCC[sidecar.xfcc_mode],
        set_current_client_cert_details=manager.HttpConnectionManagerSetCurrentClientCertDetails(
            subject=True, uri=True, dns=True
        ),
        preserve_external_request_id=True,
        always_set_request_id_in_response=True,
        request_headers_timeout=dt.timedelta(seconds=5),
        access_log=[_access_log()],
        http_filters=[
            ext_authz_filter(sidecar),
            manager.HttpFilter(name="envoy.filters.http.router", typed_config=Any.pack(router.Router())),
        ],
        route_config=_routes(sidecar),
    )


def _access_log() -> accesslog.AccessLog:
    log = stream_log.StdoutAccessLog(
        log_format=core.SubstitutionFormatString(json_format=Struct.from_dict(dict(_LOGGED)))
    )
    return accesslog.AccessLog(name="envoy.access_loggers.stdout", typed_config=Any.pack(log))


def _routes(sidecar: Sidecar) -> route.RouteConfiguration:
    everything = route.Route(
        match=route.RouteMatch(prefix="/"),
        route=route.RouteAction(cluster="application", timeout=dt.timedelta(seconds=5)),
    )
    host = route.VirtualHost(
        name=sidecar.name,
        domains=["*"],
        typed_per_filter_config=workload_settings(sidecar) if sidecar.extensions else {},
        routes=[everything],
    )
    return route.RouteConfiguration(name="inbound", virtual_hosts=[host])
