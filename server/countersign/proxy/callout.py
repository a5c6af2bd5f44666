"""The filter that asks Countersign, the cluster that it asks, and the workload that a route says.

Why each setting is as it is stands in `envoy/httpbin.yaml` and `envoy/workers.yaml`, which these are the same as.
"""

import datetime as dt
import ipaddress
from typing import Final

from countersign.edge.addresses import Address, UnixAddress
from countersign.proxy.envoy_api import Any, cluster, core, endpoint, ext_authz, manager, previous_hosts, tls, types
from countersign.proxy.envoy_api import matcher as match
from countersign.proxy.envoy_api import upstreams as upstream
from countersign.proxy.sidecar import Sidecar

FILTER: Final = "envoy.filters.http.ext_authz"
CLUSTER: Final = "countersign"
CALL_TIMEOUT: Final = dt.timedelta(seconds=0.25)  # Countersign answers within 0.15 s or denies

_CONNECT: Final = dt.timedelta(seconds=0.25)
_HALF_SECOND: Final = dt.timedelta(seconds=0.5)
_SECOND: Final = dt.timedelta(seconds=1)


def ext_authz_filter(sidecar: Sidecar) -> manager.HttpFilter:
    """The HTTP filter. It fails closed, and hides nothing of the request and of its peer."""
    service = core.GrpcService(
        envoy_grpc=core.GrpcServiceEnvoyGrpc(cluster_name=CLUSTER),
        timeout=CALL_TIMEOUT,
        retry_policy=_retry() if sidecar.workers > 1 else None,
    )
    config = ext_authz.ExtAuthz(
        transport_api_version=core.ApiVersion.V3,
        grpc_service=service,
        failure_mode_allow=False,
        status_on_error=types.HttpStatus(code=types.StatusCode.ServiceUnavailable),
        validate_mutations=True,
        encode_raw_headers=True,
        clear_route_cache=False,
        include_tls_session=True,
        include_peer_certificate=True,
        bootstrap_metadata_labels_key="labels",
    )
    return manager.HttpFilter(name=FILTER, typed_config=Any.pack(config))


def workload_settings(sidecar: Sidecar) -> dict[str, Any]:
    """``typed_per_filter_config`` of a virtual host or route: whose policies apply."""
    check = ext_authz.CheckSettings(context_extensions=dict(sidecar.extensions))
    return {FILTER: Any.pack(ext_authz.ExtAuthzPerRoute(check_settings=check))}


def _retry() -> core.RetryPolicy:
    """One more try, with another worker, where one has gone without an answer."""
    other = core.RetryPolicyRetryHostPredicate(
        name="envoy.retry_host_predicates.previous_hosts",
        typed_config=Any.pack(previous_hosts.PreviousHostsPredicate()),
    )
    return core.RetryPolicy(
        retry_on="connect-failure,refused-stream,reset",
        num_retries=1,
        retry_host_predicate=[other],
        host_selection_retry_max_attempts=3,
    )


def authorizer_cluster(sidecar: Sidecar) -> cluster.Cluster:
    """Countersign: an endpoint for each worker, and with several of them what helps Envoy past one that is gone."""
    http2 = upstream.HttpProtocolOptionsExplicitHttpConfig(http2_protocol_options=core.Http2ProtocolOptions())
    protocol = Any.pack(upstream.HttpProtocolOptions(explicit_http_config=http2))
    several = sidecar.workers > 1
    addresses = sidecar.endpoints()
    return cluster.Cluster(
        name=CLUSTER,
        type=_discovery(addresses[0]),
        dns_lookup_family=_lookup_family(addresses[0]),
        connect_timeout=_CONNECT,
        typed_extension_protocol_options={"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": protocol},
        health_checks=[_health_check()] if several else [],
        outlier_detection=_outliers() if several else None,
        common_lb_config=_never_panic() if several else None,
        circuit_breakers=_retries_at_once() if several else None,
        load_assignment=load_assignment(CLUSTER, addresses),
        transport_socket=_mtls(sidecar) if sidecar.authorizer_id else None,
    )


def _discovery(address: Address) -> cluster.ClusterDiscoveryType:
    """A name is looked up; an IP address or socket is where it is."""
    return cluster.ClusterDiscoveryType.STRICT_DNS if _is_name(address) else cluster.ClusterDiscoveryType.STATIC


def _lookup_family(address: Address) -> cluster.ClusterDnsLookupFamily:
    """IPv4 for a name; Envoy's default, which nothing reads, for what is not looked up."""
    return cluster.ClusterDnsLookupFamily.V4_ONLY if _is_name(address) else cluster.ClusterDnsLookupFamily.AUTO


def _is_name(address: Address) -> bool:
    if isinstance(address, UnixAddress):
        return False
    try:
        ipaddress.ip_address(address.host)
    except ValueError:
        return True
    return False


def load_assignment(name: str, addresses: list[Address]) -> endpoint.ClusterLoadAssignment:
    """An endpoint for each address."""
    endpoints = [endpoint.LbEndpoint(endpoint=endpoint.Endpoint(address=envoy_address(each))) for each in addresses]
    localities = [endpoint.LocalityLbEndpoints(lb_endpoints=endpoints)]
    return endpoint.ClusterLoadAssignment(cluster_name=name, endpoints=localities)


def envoy_address(address: Address) -> core.Address:
    """An address in Envoy's words."""
    if isinstance(address, UnixAddress):
        return core.Address(pipe=core.Pipe(path=address.path))
    return core.Address(socket_address=core.SocketAddress(address=address.host, port_value=address.port))


def application_cluster(sidecar: Sidecar) -> cluster.Cluster:
    """What the sidecar protects."""
    return cluster.Cluster(
        name="application",
        type=_discovery(sidecar.application),
        dns_lookup_family=_lookup_family(sidecar.application),
        connect_timeout=_SECOND,
        load_assignment=load_assignment("application", [sidecar.application]),
    )


def _health_check() -> core.HealthCheck:
    return core.HealthCheck(
        timeout=_HALF_SECOND,
        interval=_SECOND,
        no_traffic_interval=_SECOND,
        unhealthy_threshold=1,
        healthy_threshold=1,
        grpc_health_check=core.HealthCheckGrpcHealthCheck(),
    )


def _outliers() -> cluster.OutlierDetection:
    return cluster.OutlierDetection(
        split_external_local_origin_errors=True,
        consecutive_local_origin_failure=2,
        interval=_HALF_SECOND,
        base_ejection_time=_HALF_SECOND,
        max_ejection_percent=50,
        enforcing_consecutive_5xx=0,
        enforcing_success_rate=0,
        enforcing_local_origin_success_rate=0,
    )


def _never_panic() -> cluster.ClusterCommonLbConfig:
    return cluster.ClusterCommonLbConfig(healthy_panic_threshold=types.Percent(value=0))


def _retries_at_once() -> cluster.CircuitBreakers:
    return cluster.CircuitBreakers(thresholds=[cluster.CircuitBreakersThresholds(max_retries=1024)])


def _mtls(sidecar: Sidecar) -> core.TransportSocket:
    """Envoy shows its own certificate, and takes nobody but the authorizer for an answer."""
    context = tls.UpstreamTlsContext(
        common_tls_context=tls.CommonTlsContext(
            alpn_protocols=["h2"],
            tls_params=tls.TlsParameters(
                tls_minimum_protocol_version=tls.TlsParametersTlsProtocol.TLSv1_3,
                tls_maximum_protocol_version=tls.TlsParametersTlsProtocol.TLSv1_3,
            ),
            tls_certificates=[own_certificate(sidecar)],
            validation_context=only(sidecar, match.StringMatcher(exact=sidecar.authorizer_id)),
        ),
    )
    return core.TransportSocket(name="envoy.transport_sockets.tls", typed_config=Any.pack(context))


def own_certificate(sidecar: Sidecar) -> tls.TlsCertificate:
    """The certificate that Envoy shows."""
    return tls.TlsCertificate(
        certificate_chain=core.DataSource(filename=f"{sidecar.certificates}/tls.crt"),
        private_key=core.DataSource(filename=f"{sidecar.certificates}/tls.key"),
    )


def only(sidecar: Sidecar, names: match.StringMatcher) -> tls.CertificateValidationContext:
    """Certificates of the mesh's own CA with such a SPIFFE ID."""
    return tls.CertificateValidationContext(
        trusted_ca=core.DataSource(filename=f"{sidecar.certificates}/ca.crt"),
        match_typed_subject_alt_names=[
            tls.SubjectAltNameMatcher(san_type=tls.SubjectAltNameMatcherSanType.URI, matcher=names)
        ],
    )
