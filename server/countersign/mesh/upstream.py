"""The application behind the sidecar: it echoes what it received, so that one sees what came through."""

import json
from http import HTTPStatus

from countersign.mesh.http_server import HttpServer, Received


def upstream(host: str, port: int) -> HttpServer:
    """A server that answers every request with its method, path and header lines, as JSON."""
    return HttpServer("upstream", (host, port), _echo)


def _echo(received: Received) -> tuple[int, bytes]:
    echo = {"method": received.method, "path": received.path, "headers": [list(line) for line in received.headers]}
    return HTTPStatus.OK, json.dumps(echo, indent=2).encode() + b"\n"
