"""The real Envoy, set to let requests through when its authorizer fails: nothing Countersign does is such a failure.

``failure_mode_allow: true`` is what nobody should set. Here it is the magnifying glass: a gRPC error, an empty
answer or a late one would show as a 200.
"""

import contextlib
import datetime as dt
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from countersign import authorize as pipeline
from countersign.edge import check, remembered
from countersign.mesh.certificates import write_certificates
from countersign.mesh.client import Answer, Door, send
from countersign.mesh.envoy import Envoy
from countersign.mesh.relocate import Places
from countersign.mesh.upstream import upstream
from countersign.wire import auth_pb2 as pb

from tests.edge.serving import Serving, snapshot

pytestmark = pytest.mark.envoy

CONFIGURATION = Path(__file__).parents[2] / "envoy" / "httpbin.yaml"
ANY = ("127.0.0.1", 0)


class FailOpen:
    """The sidecar of `envoy/`, with the one setting changed that must never be."""

    def __init__(self, directory: Path, envoy: Envoy) -> None:
        self.run = directory / "run"
        self._envoy = envoy
        self._door = Door(name="sidecar", port=envoy.port("inbound"), certificates=directory / "certs" / "sleep")

    def get(self, method: str = "GET") -> Answer:
        """The answer to a question that was never asked before, so that every stage has its part in it."""
        return send(self._door, method, f"/headers?at={time.monotonic_ns()}", ())

    def serving(self, tamper: Callable[[bytes], bytes] = bytes) -> Serving:
        current = snapshot()
        return Serving(self.run, lambda: current, tamper=tamper)


@pytest.fixture(scope="module")
def fail_open(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FailOpen]:
    directory = tmp_path_factory.mktemp("fo")
    for name in ("run", "certs"):
        (directory / name).mkdir()
    write_certificates(directory / "certs", dt.datetime.now(dt.UTC))
    text = CONFIGURATION.read_text()
    assert text.count("failure_mode_allow: false") == 1
    changed = directory / "httpbin.yaml"
    changed.write_text(text.replace("failure_mode_allow: false", "failure_mode_allow: true"))
    with contextlib.ExitStack() as parts:
        application = parts.enter_context(upstream("127.0.0.1", 0))
        places = Places(
            addresses={
                "127.0.0.1:9901": ANY,
                "0.0.0.0:15006": ANY,
                "upstream:8080": ("127.0.0.1", application.port),
            },
            paths={"/run/countersign": directory / "run", "/run/mesh/certs": directory / "certs"},
        )
        envoy = parts.enter_context(Envoy(changed, places, directory))
        envoy.wait_ready()
        yield FailOpen(directory, envoy)


def test_this_envoy_lets_requests_through_when_nobody_answers(fail_open: FailOpen) -> None:
    assert fail_open.get().status == 200
    assert fail_open.get("DELETE").status == 200


def test_it_obeys_a_countersign_that_is_well(fail_open: FailOpen) -> None:
    with fail_open.serving():
        allowed, denied = fail_open.get(), fail_open.get("DELETE")

    assert allowed.status == 200
    assert (denied.status, denied.body) == (403, "RBAC: access denied")


def _truncate(payload: bytes) -> bytes:
    return payload[:-1]


def _garbage(_: bytes) -> bytes:
    return b"\xff" * 100


def _empty(_: bytes) -> bytes:
    return b""


def _without_http(payload: bytes) -> bytes:
    message = pb.CheckRequest.FromString(payload)
    message.attributes.request.ClearField("http")
    return message.SerializeToString()


def _without_ends(payload: bytes) -> bytes:
    message = pb.CheckRequest.FromString(_without_http(payload))
    message.attributes.source.ClearField("address")
    return message.SerializeToString()


def _without_headers(payload: bytes) -> bytes:
    message = pb.CheckRequest.FromString(payload)
    message.attributes.request.http.ClearField("header_map")
    return message.SerializeToString()


@pytest.mark.parametrize(
    "tamper", [_truncate, _garbage, _empty, _without_ends, _without_headers], ids=lambda tamper: tamper.__name__
)
def test_a_request_that_cannot_be_read_is_still_denied(fail_open: FailOpen, tamper: Callable[[bytes], bytes]) -> None:
    with fail_open.serving(tamper):
        answer = fail_open.get()

    assert (answer.status, answer.body) == (400, "request malformed")


def test_a_request_that_poses_as_a_connection_is_judged_as_one(fail_open: FailOpen) -> None:
    with fail_open.serving(_without_http):
        answer = fail_open.get()

    assert (answer.status, answer.body) == (403, "RBAC: access denied")


@pytest.mark.parametrize("fault", [Exception, RecursionError, MemoryError])
@pytest.mark.parametrize(
    ("module", "stage"),
    [
        (remembered, "facts_of"),
        (check, "authorize"),
        (check, "encode"),
        (pipeline, "find_workload"),
        (pipeline, "authenticate_peer"),
        (pipeline, "authenticate"),
        (pipeline, "_compiled"),
    ],
    ids=["decode", "authorize", "encode", "workload", "peer", "token", "policies"],
)
def test_a_stage_that_breaks_is_still_a_denial(
    fail_open: FailOpen, monkeypatch: pytest.MonkeyPatch, module: Any, stage: str, fault: type[Exception]
) -> None:
    def broken(*_: object, **__: object) -> NoReturn:
        raise fault("inside")

    with fail_open.serving():
        assert fail_open.get().status == 200
        monkeypatch.setattr(module, stage, broken)
        answer = fail_open.get()

    assert (answer.status, answer.body) == (503, "authorization unavailable")


def test_a_decision_that_comes_too_late_is_still_a_denial(fail_open: FailOpen, monkeypatch: pytest.MonkeyPatch) -> None:
    original = pipeline.authorize

    def slow(*arguments: Any, **named: Any) -> Any:
        time.sleep(check.BUDGET + 0.01)  # the stall is the fault; Envoy waits 0.25 s
        return original(*arguments, **named)

    with fail_open.serving():
        assert fail_open.get().status == 200
        monkeypatch.setattr(check, "authorize", slow)
        answer = fail_open.get()

    assert (answer.status, answer.body) == (503, "authorization unavailable")
