"""Certificates into grpcio's handshakes. TLS 1.2 is the least that its credentials speak."""

import grpc

from countersign.certificates.served import Served
from countersign.edge.tls.handshakes import Handshakes


def server_credentials(handshakes: Handshakes) -> grpc.ServerCredentials:
    """Credentials for one port: each handshake asks anew, and a client without a certificate fails in it."""
    given = handshakes.served

    def changed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal given
        latest = handshakes.served
        if latest is given:
            return None  # grpcio then keeps what it has
        given = latest
        return _configuration(latest)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(given),
        changed,  # type: ignore[arg-type]  # the stubs do not know that None means no change, as grpcio says
        require_client_authentication=True,
    )


def _configuration(served: Served) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(served.key, served.chain)], root_certificates=served.authorities)
