"""The parts that docker compose runs one by one, by the real command; and compose's health checks of them."""

import json
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from countersign.mesh.certificates import WORKLOADS, write_certificates
from countersign.mesh.envoy import Envoy
from countersign.mesh.relocate import Places

ROOT = Path(__file__).parents[2]
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
DEMO = [sys.executable, "-P", "-m", "countersign", "demo"]
LIMIT = 30.0  # seconds


@contextmanager
def _part(name: str, directory: Path) -> Iterator[tuple[subprocess.Popen[str], int, str]]:
    """A running part, its port, and what it printed before."""
    output = directory / name
    with output.open("w") as stream:
        part = subprocess.Popen(
            [*DEMO, name, "--listen", "127.0.0.1:0"], stdout=stream, stderr=subprocess.STDOUT, text=True
        )
    try:
        deadline = time.monotonic() + LIMIT
        while (match := re.search(r"listening on port (\d+)\n", output.read_text())) is None:
            assert part.poll() is None, output.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield part, int(match[1]), output.read_text()
    finally:
        part.send_signal(signal.SIGTERM)
        part.wait(LIMIT)


def _get(port: int, path: str) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=LIMIT) as answer:
        return json.loads(answer.read())


def _check(name: str, old_port: int, port: int) -> int:
    """The exit code of compose's health check, asking another port."""
    how, command = SERVICES[name]["healthcheck"]["test"]
    moved = command.replace(str(old_port), str(port))
    assert (how, moved != command) == ("CMD-SHELL", True)
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    shell = ["/bin/sh", "-c", moved]
    return subprocess.run(shell, env={"PATH": path}, capture_output=True, timeout=LIMIT, check=False).returncode


def test_the_certificates_are_written_and_the_command_ends(tmp_path: Path) -> None:
    out = tmp_path / "certs"
    done = subprocess.run(
        [*DEMO, "certificates", "--out", str(out)], capture_output=True, text=True, timeout=LIMIT, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(path.name for path in out.iterdir()) == sorted(workload.name for workload in WORKLOADS)


def test_the_issuer_publishes_keys_prints_tokens_and_ends_by_sigterm(tmp_path: Path) -> None:
    with _part("issuer", tmp_path) as (part, port, printed):
        keys = _get(port, "/jwks.json")["keys"]
        health = _check("issuer", 8000, port)

    tokens = re.findall(r"^eyJ\S+$", printed, re.MULTILINE)
    assert {key["alg"] for key in keys} == {"RS256", "ES256", "EdDSA"}
    assert not [name for key in keys for name in ("d", "p", "q", "k") if name in key]
    assert len(tokens) == 3
    assert (health, part.returncode) == (0, 0)


def test_the_upstream_echoes_and_ends_by_sigterm(tmp_path: Path) -> None:
    with _part("upstream", tmp_path) as (part, port, _):
        echo = _get(port, "/anything")
        health = _check("upstream", 8080, port)

    assert echo["path"] == "/anything"
    assert (health, part.returncode) == (0, 0)


@pytest.mark.parametrize("name", ["issuer", "upstream"])
def test_a_health_check_fails_where_nobody_listens(name: str) -> None:
    assert _check(name, {"issuer": 8000, "upstream": 8080}[name], 1) != 0


@pytest.mark.envoy
def test_the_health_check_of_an_envoy_believes_a_ready_envoy_and_nobody_else(tmp_path: Path) -> None:
    write_certificates(tmp_path / "certs", datetime.now(UTC))
    anywhere = ("127.0.0.1", 0)
    places = Places(
        addresses={"127.0.0.1:9901": anywhere, "0.0.0.0:15001": anywhere, "httpbin:15006": ("127.0.0.1", 1)},
        paths={"/run/mesh/certs": tmp_path / "certs"},
    )
    with Envoy(ROOT / "envoy" / "sleep.yaml", places, tmp_path) as envoy:
        envoy.wait_ready()
        admin = int((tmp_path / "sleep.admin").read_text().rpartition(":")[2])
        ready, elsewhere = (_check("envoy-sleep", 9901, port) for port in (admin, envoy.port("outbound")))
    gone = _check("envoy-sleep", 9901, admin)

    assert ready == 0
    assert elsewhere != 0
    assert gone != 0


@pytest.mark.parametrize("listen", ["8000", "host:", "host:port", "host:65536", ":8000"])
def test_a_listen_address_that_is_none_is_refused(listen: str) -> None:
    done = subprocess.run(
        [*DEMO, "upstream", "--listen", listen], capture_output=True, text=True, timeout=LIMIT, check=False
    )

    assert done.returncode == 2
    assert f"`{listen}` is not HOST:PORT" in done.stderr
