"""The ext_authz and health services on grpcio.

Messages pass as bytes: a request that does not parse must meet our own denial, not grpcio's INTERNAL.

With TLS, whoever has a certificate of the client CA may ask for health, which says nothing of policies; checks are
for listed callers.
"""

import asyncio
import logging
import os
import time
from collections.abc import Sequence
from typing import Any, Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from countersign.edge.addresses import Address, UnixAddress, prepare_socket, restrict_socket
from countersign.edge.grpc_core import Core
from countersign.edge.metadata import Metadata
from countersign.edge.server import MAX_RECEIVE, MAX_STREAMS, SERVICES, SOCKET_UMASK, Authorizer
from countersign.edge.silence import Heard, silence
from countersign.edge.tls.callers import Callers
from countersign.edge.tls.credentials import server_credentials
from countersign.edge.tls.handshakes import Handshakes
from countersign.wire.codec import SERVICE

_log: Final = logging.getLogger(__name__)

_OPTIONS: Final = (
    ("grpc.so_reuseport", 0),  # a second process on the same port is a mistake, and must hear so
    ("grpc.max_receive_message_length", MAX_RECEIVE),
    ("grpc.max_concurrent_streams", MAX_STREAMS),
    ("grpc.http2.max_ping_strikes", 2),
)
MAX_AGE: Final = 3600.0  # seconds of a TLS connection: as long may a certificate or an authority count that is gone


class _Health(health.aio.HealthServicer):  # type: ignore[misc]  # the package has no types
    """Notes when it was asked."""

    def __init__(self, heard: Heard) -> None:
        super().__init__()
        self._heard = heard

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Any) -> health_pb2.HealthCheckResponse:  # noqa: ANN401, N802 (the overridden signature)
        self._heard.health = time.monotonic()
        return await super().Check(request, context)


class GrpcServer:
    """Serves checks on any number of addresses; with ``metadata``, each with that of its call."""

    def __init__(
        self,
        authorizer: Authorizer,
        addresses: Sequence[Address],
        tls: Handshakes | None = None,
        max_age: float = MAX_AGE,
        *,
        metadata: bool = False,
    ) -> None:
        self._addresses = addresses
        self._tls = tls
        self._heard = Heard()
        self._health = _Health(self._heard)
        # At that age a connection gets a GOAWAY, and what runs on it ends in peace.
        aged = () if tls is None else (("grpc.max_connection_age_ms", int(max_age * 1000)),)
        self._server = Core((*_OPTIONS, *aged))
        callers = None if tls is None else Callers(tls.callers, _report)

        async def check(payload: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
            said: Metadata = tuple(context.invocation_metadata() or ()) if metadata else ()
            if callers is not None:
                refusal = callers.refusal(context.auth_context())
                if refusal is not None:
                    return authorizer.refuse(payload, refusal, said)
            self._heard.call = time.monotonic()
            result = authorizer.answer(payload, context.time_remaining(), said)
            return result if isinstance(result, bytes) else await result()

        self._server.add_registered_method_handlers(SERVICE, {"Check": grpc.unary_unary_rpc_method_handler(check)})
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)

    async def start(self) -> None:
        """Bind and accept. Raise OSError, naming the address, where that is not possible."""
        await self.set_serving(serving=False)
        for address in self._addresses:
            self._bind(address)
        await self._server.start()

    def _bind(self, address: Address) -> None:
        if not isinstance(address, UnixAddress):
            self._add_port(address)
            return
        prepare_socket(address)
        umask = os.umask(SOCKET_UMASK)
        try:
            self._add_port(address)
        finally:
            os.umask(umask)
        restrict_socket(address)

    def _add_port(self, address: Address) -> None:
        try:
            if self._tls is None:
                port = self._server.add_insecure_port(str(address))
            else:
                port = self._server.add_secure_port(str(address), server_credentials(self._tls))
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address}") from error
        if not port:
            raise OSError(f"cannot listen on {address}")

    async def set_serving(self, *, serving: bool) -> None:
        """Tell health checks, for the whole server and for the service by name."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for service in SERVICES:
            await self._health.set(service, status)

    async def ended(self) -> None:
        """Return when the server has ended, and raise what ended it."""
        await self._server.ended()

    async def drain(self, grace: float) -> None:
        """Say NOT_SERVING, answer whoever still calls, take no new checks, and give running ones time to end.

        All of it in ``grace`` seconds.
        """
        await self._health.enter_graceful_shutdown()
        begun = time.monotonic()
        await silence(self._heard, lambda: False, grace)
        await self._server.stop(max(0.0, begun + grace - time.monotonic()))


def _report(why: str) -> None:
    """Log a refused caller, beside the request path."""
    asyncio.get_running_loop().call_soon(_log.warning, "a caller is refused every check: %s", why)
