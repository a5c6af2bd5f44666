"""The issuers' key sets over HTTP, for rules with ``jwksUri`` and rules that name neither keys nor a place of them."""

import json
import os
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from countersign.mesh.http_server import HttpServer, Received

# An address of this process's own: policies and tokens name it before anything listens there.
_HOST: Final = f"127.88.{os.getpid() // 250 % 250}.{os.getpid() % 250 + 1}"
_PORT: Final = 8070
URL: Final = f"http://{_HOST}:{_PORT}"
DISCOVERED: Final = f"{URL}/realms/live"  # the issuer that is asked for its keys
BROKEN: Final = (f"{URL}/nothing", f"{URL}/garbage", f"{URL}/empty")

Keys = Callable[[int, int], str]  # the key set of an issuer (by its number), in one of several spellings


def uri(issuer: int, variant: int) -> str:
    """Where the key set of an issuer is, in one of several spellings."""
    return f"{URL}/keys/{issuer}/{variant}"


def key_server(keys: Keys, discovered: int) -> HttpServer:
    """Serves every key set; ``discovered`` is the number of the issuer that tells where its own is."""

    def answer(received: Received) -> tuple[int, bytes]:
        match received.path.split("/")[1:]:
            case ["keys", issuer, variant]:
                return HTTPStatus.OK, keys(int(issuer), int(variant)).encode()
            case ["garbage"]:
                return HTTPStatus.OK, b"no keys"
            case ["empty"]:
                return HTTPStatus.OK, b'{"keys": []}'
            case ["realms", "live", ".well-known", "openid-configuration"]:
                return HTTPStatus.OK, json.dumps({"issuer": DISCOVERED, "jwks_uri": uri(discovered, 0)}).encode()
            case _:
                return HTTPStatus.NOT_FOUND, b"{}"

    return HttpServer("issuers", (_HOST, _PORT), answer)


def cluster(name: str) -> dict[str, object]:
    """The same place as an upstream of Envoy's."""
    address = {"socket_address": {"address": _HOST, "port_value": _PORT}}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    assignment = {"cluster_name": name, "endpoints": endpoints}
    return {"name": name, "type": "STATIC", "connect_timeout": "1s", "load_assignment": assignment}
