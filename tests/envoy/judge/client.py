"""Sends requests exactly as written, over connections that it keeps: one for each caller, address, listener and SNI."""

import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tests.envoy.judge.identities import PLAINTEXT

_TIMEOUT: Final = 10.0
_CHUNK: Final = 1 << 16


class NoAnswerError(RuntimeError):
    """Envoy closed the connection, or sent something that is no answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request without a body. ``caller`` is the name of an identity; headers are sent in this order."""

    caller: str = PLAINTEXT
    source: str = "127.0.0.1"
    listener: str = "normalising"
    sni: str = ""
    method: str = "GET"
    path: str = "/"
    host: str = "web.example"
    headers: tuple[tuple[str, str], ...] = ()

    def head(self, *more: tuple[str, str]) -> bytes:
        """The request as it goes over the wire."""
        lines = [f"{self.method} {self.path} HTTP/1.1", f"host: {self.host}"]
        lines += [f"{name}: {value}" for name, value in (*self.headers, *more)]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What came back; header names are lower case."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        """The first line of a header."""
        return next((value for found, value in self.headers if found == name), None)


class Client:
    """All connections to one arena."""

    def __init__(self, listeners: Mapping[str, tuple[str, int]], contexts: Mapping[str, ssl.SSLContext]) -> None:
        self._listeners = listeners
        self._contexts = contexts
        self._sockets: dict[tuple[str, str, str, str], socket.socket] = {}

    def close(self) -> None:
        """Close every connection."""
        for each in self._sockets.values():
            each.close()
        self._sockets.clear()

    def send(self, request: Request, *more: tuple[str, str]) -> Response:
        """Send one request and read its answer. Envoy may have closed a kept connection, so there is a second try."""
        try:
            return self._send(request, request.head(*more))
        except (NoAnswerError, OSError):
            return self._send(request, request.head(*more))

    def _send(self, request: Request, head: bytes) -> Response:
        key = (request.caller, request.source, request.listener, request.sni)
        connection = self._sockets.get(key)
        if connection is None:
            connection = self._sockets[key] = self._connect(request)
        try:
            connection.sendall(head)
            response = _read(connection, is_head=request.method == "HEAD")
        except (NoAnswerError, OSError):
            self._sockets.pop(key).close()
            raise
        if response.header("connection") == "close":
            self._sockets.pop(key).close()
        return response

    def _connect(self, request: Request) -> socket.socket:
        address = self._listeners[request.listener]
        plain = socket.create_connection(address, timeout=_TIMEOUT, source_address=(request.source, 0))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if request.caller == PLAINTEXT:
            return plain
        return self._contexts[request.caller].wrap_socket(plain, server_hostname=request.sni or None)


def _read(connection: socket.socket, *, is_head: bool) -> Response:
    data = b""
    while b"\r\n\r\n" not in data:
        data += _more(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    headers = tuple((name.lower(), value.strip()) for name, _, value in pairs)
    response = Response(status=int(first.split(" ")[1]), headers=headers, body=body)
    length = 0 if is_head else int(response.header("content-length") or 0)
    while len(body) < length:
        body += _more(connection)
    return Response(status=response.status, headers=headers, body=body)


def _more(connection: socket.socket) -> bytes:
    data = connection.recv(_CHUNK)
    if not data:
        raise NoAnswerError("the connection was closed")
    return data
