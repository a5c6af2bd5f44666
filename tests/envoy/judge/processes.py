"""The processes of an arena: a workload, Countersign in each posture, and Envoy, all below one directory."""

import contextlib
import http.client
import json
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from countersign.mesh.envoy import find_envoy
from countersign.mesh.process import Child, wait_until

from tests.envoy.judge.matchers import Json
from tests.envoy.judge.policy_set import MESH

POSTURES: Final = ("istio", "strict")
REMOTE_IP_HOPS: Final = 1  # proxies before Envoy, for `remote.ip`
_FAULT: Final = " ERROR "  # the level of what Countersign logs of a fault of its own
_READY_WITHIN: Final = 60.0
_PROBE_TIMEOUT: Final = 2.0


class Processes:
    """Started one by one, and stopped with ``parts``."""

    def __init__(self, directory: Path, parts: contextlib.ExitStack) -> None:
        self._directory = directory
        self._parts = parts
        self._servers: list[Child] = []

    def run(self, name: str, command: Sequence[str]) -> Child:
        """Start a process."""
        child = Child(name, command, directory=self._directory)
        self._parts.callback(child.stop)
        return child

    def echo(self, listen: Path) -> None:
        """Start the workload."""
        self.run("echo", [sys.executable, str(Path(__file__).with_name("echo.py")), str(listen)])

    def serve(self, documents: Sequence[Json], configuration: Json, *flags: str) -> None:
        """Start both Countersigns with these policies (and further flags), and Envoy; wait until all are ready."""
        policies = self._directory / "policies.yaml"
        policies.write_text("\n---\n".join(map(json.dumps, documents)), encoding="utf-8")
        servers = []
        for posture in POSTURES:
            probes = _free_port()
            command = _countersign(self._directory / f"{posture}.sock", policies, posture, probes)
            servers.append((self.run(posture, [*command, *flags]), probes))
        self._servers = [server for server, _ in servers]
        write_json(self._directory / "envoy.json", configuration)
        admin = self._directory / "admin"
        envoy = self.run("envoy", _envoy(self._directory / "envoy.json", admin))
        for server, probes in servers:
            _wait(f"starting countersign --posture {server.name}", ("127.0.0.1", probes), "/readyz", server)
        address = wait_until(
            "starting envoy", lambda: _text(admin) if admin.exists() else None, within=_READY_WITHIN, child=envoy
        )
        host, _, port = address.rpartition(":")
        _wait("starting envoy", (host, int(port)), "/ready", envoy)

    def faults(self) -> list[str]:
        """What Countersign has logged of faults of its own, which it answers as it does a check that came too late."""
        logs = [file for server in self._servers for file in (server.output, server.log) if file.exists()]
        lines = [line for file in logs for line in file.read_text(encoding="utf-8", errors="replace").splitlines()]
        return [line for line in lines if _FAULT in line]


def _countersign(listen: Path, policies: Path, posture: str, probes: int) -> list[str]:
    command = [sys.executable, "-P", "-m", "countersign", "serve", "--listen", f"unix:{listen}"]
    command += ["--policies", str(policies), "--posture", posture, "--probes", f"127.0.0.1:{probes}", "--admin", "off"]
    command += ["--remote-ip-hops", str(REMOTE_IP_HOPS)]
    command += ["--trust-domain", MESH.trust_domain, "--root-namespace", MESH.root_namespace]
    return command + [part for alias in MESH.aliases for part in ("--trust-domain-alias", alias)]


def _envoy(configuration: Path, admin: Path) -> list[str]:
    command = [str(find_envoy()), "-c", str(configuration), "--admin-address-path", str(admin)]
    return [*command, "--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]


def write_json(file: Path, value: Json) -> None:
    """Write a value as a file."""
    file.write_text(json.dumps(value), encoding="utf-8")


def _text(file: Path) -> str | None:
    return file.read_text(encoding="utf-8") or None


def _wait(wish: str, address: tuple[str, int], path: str, child: Child) -> None:
    def ready() -> bool | None:
        connection = http.client.HTTPConnection(*address, timeout=_PROBE_TIMEOUT)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == http.HTTPStatus.OK or None
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    wait_until(wish, ready, within=_READY_WITHIN, child=child)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
