"""The echo says what really arrived; the key server publishes what the issuer signs with."""

import http.client
import json
import socket
import struct

import pytest
from countersign.mesh.issuer import Issuer
from countersign.mesh.key_server import key_server
from countersign.mesh.scenario import ISSUER
from countersign.mesh.upstream import upstream


def _connect(port: int) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", port, timeout=5)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_the_upstream_echoes_method_path_and_every_header_line(method: str) -> None:
    with upstream("127.0.0.1", 0) as server:
        connection = _connect(server.port)
        connection.putrequest(method, "/a//b?c=d", skip_accept_encoding=True)
        for value in ("one", "two"):
            connection.putheader("X-Twice", value)
        connection.endheaders()
        echo = json.loads(connection.getresponse().read())
        connection.close()

    assert echo["method"] == method
    assert echo["path"] == "/a//b?c=d"
    assert [line for line in echo["headers"] if line[0] == "X-Twice"] == [["X-Twice", "one"], ["X-Twice", "two"]]


def test_one_connection_carries_a_body_and_then_another_request() -> None:
    with upstream("127.0.0.1", 0) as server:
        connection = _connect(server.port)
        connection.request("POST", "/first", body=b"GET /smuggled HTTP/1.1\r\n\r\n")
        first = json.loads(connection.getresponse().read())
        connection.request("HEAD", "/second")
        second = connection.getresponse()
        body = second.read()
        connection.close()

    assert first["path"] == "/first"
    assert (second.status, body) == (200, b"")


def test_a_body_of_unknown_length_ends_the_connection() -> None:
    with upstream("127.0.0.1", 0) as server:
        connection = _connect(server.port)
        connection.request("POST", "/", body=iter([b"piece"]), encode_chunked=True)
        response = connection.getresponse()
        echo = json.loads(response.read())
        connection.close()

    assert echo["method"] == "POST"


def test_a_caller_that_is_still_sending_when_the_connection_ends_gets_its_answer() -> None:
    with upstream("127.0.0.1", 0) as server, socket.create_connection(("127.0.0.1", server.port), timeout=5) as caller:
        reader = caller.makefile("rb")
        caller.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        status = reader.readline()
        for _ in range(100):  # a reset would be met at the second
            caller.sendall(b"5\r\npiece\r\n")
        _, _, body = reader.read().partition(b"\r\n\r\n")
        reader.close()

    assert status == b"HTTP/1.1 200 OK\r\n"
    assert json.loads(body)["method"] == "POST"


def test_the_key_server_publishes_the_issuers_keys_and_nothing_else() -> None:
    issuer = Issuer(ISSUER)
    with key_server(issuer, "127.0.0.1", 0) as server:
        answers = []
        for path in ("/jwks.json", "/"):
            connection = _connect(server.port)
            connection.request("GET", path)
            response = connection.getresponse()
            answers.append((response.status, json.loads(response.read())))
            connection.close()

    assert answers == [(200, issuer.jwks()), (404, {})]


def test_a_caller_that_is_gone_is_no_news(capsys: pytest.CaptureFixture[str]) -> None:
    with upstream("127.0.0.1", 0) as server:
        gone = socket.create_connection(("127.0.0.1", server.port))
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close() resets
        gone.sendall(b"GET / HTTP/1.1\r\n")
        gone.close()
        connection = _connect(server.port)
        connection.request("GET", "/")
        status = connection.getresponse().status
        connection.close()

    assert status == 200
    assert capsys.readouterr().err == ""
