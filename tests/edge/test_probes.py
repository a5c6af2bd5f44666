"""Health over HTTP."""

import pytest
from countersign.edge.addresses import TcpAddress
from countersign.edge.probes import Probes
from countersign.edge.readiness import Check, Checks

from tests.edge.probing import ask

WITHOUT: Checks = (Check("policies", "no policy has been loaded"), Check("listening"))
FINE: Checks = (Check("policies"), Check("listening"))
ANY = TcpAddress("127.0.0.1", 0)


def _metrics() -> bytes:
    return b"a_total 1.0\n"


def test_metrics_are_there_for_whoever_scrapes() -> None:
    with Probes(ANY, lambda: WITHOUT, _metrics) as probes:
        assert ask(probes.port, "/metrics") == (200, "a_total 1.0")


@pytest.mark.parametrize("path", ["/readyz", "/ready", "/health", "/readyz?exclude=policies"])
def test_readiness_says_why_not(path: str) -> None:
    checks = WITHOUT
    with Probes(ANY, lambda: checks, _metrics) as probes:
        assert ask(probes.port, path) == (503, "no policy has been loaded")
        checks = FINE
        assert ask(probes.port, path) == (200, "ok")


@pytest.mark.parametrize("query", ["?verbose", "?verbose=1", "?verbose&timeout=5s"])
def test_readiness_says_each_check_with_its_reason(query: str) -> None:
    checks = WITHOUT
    with Probes(ANY, lambda: checks, _metrics) as probes:
        assert ask(probes.port, f"/readyz{query}") == (
            503,
            "[-]policies failed: no policy has been loaded\n[+]listening ok\nreadyz check failed",
        )
        checks = FINE
        assert ask(probes.port, f"/readyz{query}") == (200, "[+]policies ok\n[+]listening ok\nreadyz check passed")


@pytest.mark.parametrize("path", ["/healthz", "/livez"])
def test_a_process_that_is_not_ready_is_alive(path: str) -> None:
    with Probes(ANY, lambda: WITHOUT, _metrics) as probes:
        assert ask(probes.port, path) == (200, "ok")
        assert ask(probes.port, f"{path}?verbose") == (200, f"[+]ping ok\n{path[1:]} check passed")


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/", 404), ("GET", "/readyz/", 404), ("POST", "/readyz", 501)]
)
def test_nothing_else_is_there(method: str, path: str, status: int) -> None:
    with Probes(ANY, lambda: FINE, _metrics) as probes:
        assert ask(probes.port, path, method)[0] == status


def test_a_port_that_is_taken_is_an_error() -> None:
    with Probes(ANY, lambda: FINE, _metrics) as probes, pytest.raises(OSError, match="in use"):
        Probes(TcpAddress("127.0.0.1", probes.port), lambda: FINE, _metrics)
