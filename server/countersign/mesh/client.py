"""Sends one request over HTTP/1.1, exactly as written: no path is cleaned, no header is merged."""

import http.client
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from countersign.mesh.process import MeshError

_TIMEOUT: Final = 10.0  # seconds; Envoy itself gives up after 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """Where a caller enters the mesh: a port, on loopback unless said, and a certificate if the caller has one."""

    name: str
    port: int
    host: str = "127.0.0.1"
    certificates: Path | None = None  # a directory with tls.crt, tls.key and ca.crt
    server_name: str = "httpbin"


def send(door: Door, method: str, path: str, headers: tuple[tuple[str, str], ...]) -> Answer:
    """Send one request on a connection of its own. Raise `MeshError` if no HTTP answer comes."""
    connection = http.client.HTTPConnection(door.host, door.port, timeout=_TIMEOUT)
    try:
        connection.sock = _connect(door)
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in (("host", door.server_name), *headers):
            connection.putheader(name, value)
        connection.endheaders()
        response = connection.getresponse()
        body = response.read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        raise MeshError(f"{method} {path} through {door.name}: {type(error).__name__}: {error}") from error
    finally:
        connection.close()
    received = {name.lower(): value for name, value in response.getheaders()}
    return Answer(status=response.status, headers=received, body=body)


def _connect(door: Door) -> socket.socket:
    plain = socket.create_connection((door.host, door.port), timeout=_TIMEOUT)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # or the request waits 40 ms behind the handshake
    if door.certificates is None:
        return plain
    context = ssl.create_default_context(cafile=str(door.certificates / "ca.crt"))
    context.load_cert_chain(door.certificates / "tls.crt", door.certificates / "tls.key")
    try:
        return context.wrap_socket(plain, server_hostname=door.server_name)
    except OSError:
        plain.close()
        raise
