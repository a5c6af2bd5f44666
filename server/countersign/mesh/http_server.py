"""A small HTTP server for the parts of the mesh that are not under test: it asks one function for each answer."""

import contextlib
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, Self

_MAX_BODY: Final = 1 << 20
_PIECE: Final = 1 << 16
_LINGER: Final = 1.0  # seconds to wait for more of a body that nobody reads
_IDLE: Final = 30.0  # seconds a silent connection may stay


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One request, every header line as it came."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]


Answer = Callable[[Received], tuple[int, bytes]]


class HttpServer:
    """Serves JSON from entering the context to leaving it. Port 0 takes a free one."""

    def __init__(self, name: str, address: tuple[str, int], answer: Answer) -> None:
        self._server = _Server(address, _handler(answer))
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, name=name, daemon=True
        )

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._server.server_address[1]

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
    request_queue_size = 128  # whoever starts with many rules asks for many key sets at once
    block_on_close = False  # Envoy keeps its connections open for longer than anybody wants to wait

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 (the overridden signature)
        """A caller that is gone, such as an Envoy that was stopped, is no news."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def _handler(answer: Answer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # Envoy keeps the connection
        timeout = _IDLE

        def _answer(self) -> None:
            unread = False
            length = self.headers.get("content-length", "0")
            if not length.isdecimal() or int(length) > _MAX_BODY or "transfer-encoding" in self.headers:
                self.close_connection = unread = True  # a body of another length would be taken for the next request
            else:
                self.rfile.read(int(length))
            path = self.requestline.split()[1]  # `self.path` has lost what http.server takes for a second slash
            received = Received(method=self.command, path=path, headers=tuple(self.headers.items()))
            status, body = answer(received)
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)
            if unread:
                self._linger()

        def _linger(self) -> None:
            """Let the caller finish: to close on what it still sends would reset the connection, and lose the answer.

            Source: RFC 9112 9.6.
            """
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(_LINGER)
            left = _MAX_BODY
            with contextlib.suppress(TimeoutError):
                while left > 0 and (read := len(self.connection.recv(min(left, _PIECE)))):
                    left -= read

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _answer  # noqa: N815 (http.server's names)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the overridden signature)
            """Envoy's access log says it already."""

    return Handler
