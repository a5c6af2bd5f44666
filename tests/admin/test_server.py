"""The admin API over HTTP: who may ask, what for, and how much of it."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Final

import pytest
from countersign.admin.server import CLIENTS
from countersign.edge.addresses import TcpAddress
from countersign.mesh.process import wait_until

from tests.admin.asking import ANY, JSON, api, ask
from tests.edge.serving import snapshot

CHECK: Final = '{"attributes": {"request": {"http": {"method": "GET", "path": "/", "headers": {"x": "y"}}}}}'


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with api(snapshot) as admin:
        yield admin.port


def _fail() -> None:
    raise LookupError("eyJhbGciOiJub25lIn0.secret.part")


def test_an_answer_is_json_that_nobody_keeps_and_no_browser_guesses_at(port: int) -> None:
    answer = ask(port, "/policies")
    assert answer.status == 200
    assert answer.json["policies"][0]["policy"] == "readers.apps"
    assert answer.headers["content-type"] == JSON
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_head_is_get_without_the_text(port: int) -> None:
    get, head = ask(port, "/jwks"), ask(port, "/jwks", "HEAD")
    assert (head.status, head.text) == (200, "")
    assert head.headers["content-length"] == get.headers["content-length"] != "0"


def test_the_configuration_is_the_text_of_print_config() -> None:
    with api(snapshot, configuration="a: 1 # default\n") as admin:
        answer = ask(admin.port, "/config")
    assert (answer.text, answer.headers["content-type"]) == ("a: 1 # default\n", "application/yaml")


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1.evil.example", "0.0.0.0:{port}", "10.0.0.1", "", "a b"]
)
def test_a_name_that_somebody_else_lets_lead_here_is_refused(port: int, host: str) -> None:
    answer = ask(port, "/policies", host=host.format(port=port))
    assert answer.status == 421
    assert "readers" not in answer.text


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:{port}", "[::1]:{port}", "[::1]", "127.8.8.8"])
def test_the_names_of_this_machine_are_taken(port: int, host: str) -> None:
    # 1 is as good a port as any: a tunnel has another one at its end
    assert ask(port, "/policies", host=host.format(port=port)).status == 200


def test_on_every_address_any_address_is_taken_and_still_no_name() -> None:
    with api(snapshot, address=TcpAddress("0.0.0.0", 0)) as admin:
        assert ask(admin.port, "/policies", host="192.0.2.7:8181").status == 200
        assert ask(admin.port, "/policies", host="evil.example:8181").status == 421


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_nothing_can_be_changed(port: int, method: str) -> None:
    answer = ask(port, "/policies", method)
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")
    assert ask(port, "/explain", method).headers["allow"] == "GET, HEAD, POST"
    assert ask(port, "/policies", "POST", "{}", content_type=JSON).status == 405


@pytest.mark.parametrize(
    ("path", "status", "why"),
    [
        ("/", 404, "try /policies, /jwks, /config, /decisions"),
        ("/policies/", 404, "try /policies"),
        ("/policies?workloads=apps/httpbin", 400, "takes workload, label"),
        ("/policies?label=a=b", 400, "wants one workload=NS/APP"),
        ("/policies?workload=apps/a&workload=apps/b", 400, "wants one workload=NS/APP"),
        ("/policies?workload=/a", 400, "wants NS/APP"),
        ("/policies?workload=apps/a&label=b", 400, "wants K=V"),
        ("/policies?workload=apps/a&label=app=b", 400, "say something else"),
        ("/policies?workload", 400, "cannot be read"),
        ("/jwks?x=y", 400, "takes no parameters"),
        ("/config?x=y", 400, "takes no parameters"),
        ("/decisions/0123", 404, "no such decision"),
        ("/explain", 400, "POST a CheckRequest"),
        ("/explain?decision=0123", 404, "no such decision"),
    ],
)
def test_what_is_not_there_is_said(port: int, path: str, status: int, why: str) -> None:
    answer = ask(port, path)
    assert answer.status == status
    assert why in answer.json["error"]


def test_a_page_cannot_post(port: int) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        assert ask(port, "/explain", "POST", CHECK, content_type=kind).status == 415
    assert ask(port, "/explain", "POST", CHECK, content_type=f"{JSON}; charset=utf-8").status == 200


@pytest.mark.parametrize(
    ("length", "status"), [("1048577", 413), ("9" * 5000, 413), ("-1", 411), ("+5", 411), ("x", 411)]
)
def test_a_body_has_a_length_that_is_bounded(port: int, length: str, status: int) -> None:
    assert ask(port, "/explain", "POST", "", content_type=JSON, content_length=length).status == status


@pytest.mark.parametrize(
    "body", ["", "{}", "[]", '{"attributes": 1}', '{"attributes": {}, "attributes": {}}', "{" * 9999]
)
def test_what_is_no_check_request_is_refused(port: int, body: str) -> None:
    answer = ask(port, "/explain", "POST", body, content_type=JSON)
    assert answer.status == 400
    assert answer.json["error"]


def test_a_fault_is_told_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    with api(_fail) as admin:  # type: ignore[arg-type]  # no snapshot: a fault
        answer = ask(admin.port, "/policies")
    assert (answer.status, answer.json["error"]) == (500, "a fault of countersign; see its log")
    assert "failed with LookupError" in caplog.text
    assert "secret" not in caplog.text


def _connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=5)


def test_clients_are_bounded_and_those_that_left_make_room() -> None:
    with api(snapshot) as admin:
        with ExitStack() as held:
            for _ in range(CLIENTS):
                client = held.enter_context(closing(_connect(admin.port)))
                client.sendall(b"GET /jwks")
            with closing(_connect(admin.port)) as late:
                assert late.recv(1) == b""  # hung up on
        wait_until("room", lambda: _answers(admin.port) or None, within=5)


def _answers(port: int) -> bool:
    try:
        return ask(port, "/jwks").status == 200
    except OSError:
        return False


def test_whoever_is_slow_is_hung_up_on_though_it_sends_on() -> None:
    with api(snapshot, seconds=0.2) as admin, closing(_connect(admin.port)) as slow:
        slow.settimeout(0.05)
        begun = time.monotonic()
        received: bytes | None = None
        while received is None and time.monotonic() - begun < 4:  # before 5 s without an octet would end it
            try:
                slow.sendall(b"x")
                received = slow.recv(1)
            except TimeoutError:
                continue
            except OSError:
                received = b""
        assert received == b""


def test_an_address_that_is_taken_is_an_error() -> None:
    with api(snapshot, address=ANY) as admin, pytest.raises(OSError, match=r"for the admin API: .*in use"):
        api(snapshot, address=TcpAddress("127.0.0.1", admin.port))
