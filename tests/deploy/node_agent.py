"""What Istio's agent is to its proxy: the server of its certificate and of the mesh's CA (SDS), on a unix socket."""

import contextlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import grpc
from countersign.proxy.envoy_api import Any, core, tls

from tests.edge.tls.pki import key_pem
from tests.support.certificates import Issued
from tests.support.envoy_data_plane import discovery

_KIND: Final = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"


@contextlib.contextmanager
def secrets(path: Path, own: Issued, authority: Issued) -> Iterator[None]:
    """Serves inside it."""
    pair = tls.TlsCertificate(
        certificate_chain=core.DataSource(inline_string=own.pem),
        private_key=core.DataSource(inline_string=key_pem(own).decode()),
    )
    trusted = tls.CertificateValidationContext(trusted_ca=core.DataSource(inline_string=authority.pem))
    known = {
        "default": tls.Secret(name="default", tls_certificate=pair),
        "ROOTCA": tls.Secret(name="ROOTCA", validation_context=trusted),
    }
    with ThreadPoolExecutor(16) as threads:
        server = grpc.server(threads)
        server.add_generic_rpc_handlers((_handler(known),))
        server.add_insecure_port(f"unix:{path}")
        server.start()
        try:
            yield
        finally:
            server.stop(0).wait()


def _handler(known: Mapping[str, tls.Secret]) -> grpc.GenericRpcHandler:
    def stream(requests: Iterator[bytes], _: grpc.ServicerContext) -> Iterator[bytes]:
        for octets in requests:
            request = discovery.DiscoveryRequest.parse(octets)
            if not request.version_info:  # else it says that it has it
                found = [Any.pack(known[name]) for name in request.resource_names]
                answer = discovery.DiscoveryResponse(version_info="1", nonce="1", type_url=_KIND, resources=found)
                yield bytes(answer)

    method: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(stream)
    return grpc.method_handlers_generic_handler(
        "envoy.service.secret.v3.SecretDiscoveryService", {"StreamSecrets": method}
    )
