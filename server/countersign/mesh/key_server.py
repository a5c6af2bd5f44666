"""The issuer's key set over HTTP on any address: what docker compose needs, where the demo stays on loopback."""

import json
from http import HTTPStatus

from countersign.mesh.http_server import HttpServer, Received
from countersign.mesh.issuer import Issuer


def key_server(issuer: Issuer, host: str, port: int) -> HttpServer:
    """A server whose `/jwks.json` is the issuer's key set."""

    def answer(received: Received) -> tuple[int, bytes]:
        if received.path != "/jwks.json":
            return HTTPStatus.NOT_FOUND, b"{}\n"
        return HTTPStatus.OK, json.dumps(issuer.jwks()).encode()

    return HttpServer("issuer", (host, port), answer)
