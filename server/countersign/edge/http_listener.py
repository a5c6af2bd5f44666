"""HTTP for operators, in threads of its own: bounded in clients and in time, so that it costs checks nothing."""

import logging
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, Self

from countersign.edge.addresses import TcpAddress

_log: Final = logging.getLogger(__name__)

MAX_SECONDS: Final = 10.0  # for one client, however slowly it sends and reads


class HttpListener:
    """A context manager: the listener is up inside it. ``purpose`` is for the error where it cannot listen.

    It has so many ``clients`` at a time, and hangs up on whoever comes then. Each may take so many ``seconds``.
    """

    def __init__(
        self,
        address: TcpAddress,
        handler: type[BaseHTTPRequestHandler],
        purpose: str,
        *,
        clients: int,
        seconds: float = MAX_SECONDS,
    ) -> None:
        try:
            self._server = _Server(address, handler, clients, seconds)
        except OSError as error:
            raise OSError(f"cannot listen on {address} for {purpose}: {error.strerror or error}") from error
        self._thread = threading.Thread(target=self._server.serve_forever, name=purpose, daemon=True)

    @property
    def port(self) -> int:
        """The port in use, also where 0 was asked for."""
        return int(self._server.server_address[1])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: TcpAddress, handler: type[BaseHTTPRequestHandler], most: int, seconds: float) -> None:
        self._most = most
        self._seconds = seconds
        self._clients: dict[socket.socket, float] = {}  # and until when each may take
        self.address_family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        super().__init__((address.host, address.port), handler)

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 (socketserver's types)
        if len(self._clients) >= self._most:
            self.shutdown_request(request)
            return
        self._clients[request] = time.monotonic() + self._seconds
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:  # noqa: ANN401
        self._clients.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Twice a second: hang up on whoever has had its time."""
        now = time.monotonic()
        for client, until in list(self._clients.items()):
            if now > until:
                self._clients.pop(client, None)
                try:
                    client.shutdown(socket.SHUT_RDWR)  # its thread finds the end, and closes
                except OSError:
                    continue  # it has gone by itself

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401, ARG002
        """Say that a fault is ours, without its text; clients that go away are not news."""
        error = sys.exception()
        if not isinstance(error, OSError):
            _log.error("an answer over HTTP failed with %s", type(error).__name__)
