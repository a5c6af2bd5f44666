"""The ext_authz and health services on grpcio.

Messages pass as bytes: a request that does not parse must meet our own denial, not grpcio's INTERNAL.
"""

import os
from collections.abc import Sequence
from typing import Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from countersign.edge.addresses import Address, UnixAddress, prepare_socket, restrict_socket
from countersign.edge.server import MAX_RECEIVE, MAX_STREAMS, SERVICES, SOCKET_UMASK, Answer
from countersign.wire.codec import SERVICE

_OPTIONS: Final = (
    ("grpc.so_reuseport", 0),  # a second process on the same port is a mistake, and must hear so
    ("grpc.max_receive_message_length", MAX_RECEIVE),
    ("grpc.max_concurrent_streams", MAX_STREAMS),
    ("grpc.http2.max_ping_strikes", 2),
)


class GrpcServer:
    """Serves checks on any number of addresses. Says NOT_SERVING until told otherwise."""

    def __init__(self, answer: Answer, addresses: Sequence[Address]) -> None:
        self._addresses = addresses
        self._health = health.aio.HealthServicer()
        self._server = grpc.aio.server(options=_OPTIONS)

        async def check(payload: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
            result = answer(payload, context.time_remaining())
            return result if isinstance(result, bytes) else await result()

        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, {"Check": grpc.unary_unary_rpc_method_handler(check)}),)
        )
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
            port = self._server.add_insecure_port(str(address))
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
        """Return when the server has ended."""
        await self._server.wait_for_termination()

    async def drain(self, grace: float) -> None:
        """Say NOT_SERVING, take no new checks, and give running ones ``grace`` seconds to end."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace)
