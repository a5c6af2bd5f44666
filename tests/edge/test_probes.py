"""Health over HTTP."""

import pytest
from countersign.edge.addresses import TcpAddress
from countersign.edge.probes import Probes

from tests.edge.probing import ask


@pytest.mark.parametrize("path", ["/readyz", "/ready", "/health", "/readyz?verbose"])
def test_readiness_says_why_not(path: str) -> None:
    why = ["no policy has been loaded"]
    with Probes(TcpAddress("127.0.0.1", 0), lambda: why[0]) as probes:
        assert ask(probes.port, path) == (503, "no policy has been loaded")
        why[0] = ""
        assert ask(probes.port, path) == (200, "ok")


@pytest.mark.parametrize("path", ["/healthz", "/livez"])
def test_a_process_that_is_not_ready_is_alive(path: str) -> None:
    with Probes(TcpAddress("127.0.0.1", 0), lambda: "not yet") as probes:
        assert ask(probes.port, path) == (200, "ok")


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/", 404), ("GET", "/readyz/", 404), ("POST", "/readyz", 501)]
)
def test_nothing_else_is_there(method: str, path: str, status: int) -> None:
    with Probes(TcpAddress("127.0.0.1", 0), lambda: "") as probes:
        assert ask(probes.port, path, method)[0] == status


def test_a_port_that_is_taken_is_an_error() -> None:
    with Probes(TcpAddress("127.0.0.1", 0), lambda: "") as probes, pytest.raises(OSError, match="in use"):
        Probes(TcpAddress("127.0.0.1", probes.port), lambda: "")
