"""The arena: one real Envoy, Countersign twice (both postures) and an echoing workload, for a batch of policy sets."""

import base64
import contextlib
import http.client
import itertools
import json
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import yaml
from countersign.mesh.envoy import find_envoy
from countersign.mesh.process import Child, wait_until

from tests.envoy.judge import arena_config, identities, tokens
from tests.envoy.judge.arena_config import ARM_HEADER, POSTURES, REMOTE_IP_HOPS, Places
from tests.envoy.judge.client import Client, NoAnswerError, Request
from tests.envoy.judge.key_server import DISCOVERED, key_server
from tests.envoy.judge.peers import NATIVE, oracle
from tests.envoy.judge.policy_set import MESH, PORTS, REFUSALS, PolicySet

_READY_WITHIN: Final = 60.0
_PROBE_TIMEOUT: Final = 2.0
_NOT_COMPARED: Final = frozenset({ARM_HEADER, "x-request-id"})
_TELLING: Final = ("www-authenticate", "grpc-status", "grpc-message", "content-type")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One arm's answer, as far as the arms must agree. ``received`` is None unless the workload got the request."""

    status: int
    headers: tuple[tuple[str, str | None], ...] = ()
    body: str = ""
    received: tuple[str, ...] | None = None

    @property
    def allowed(self) -> bool:
        """Whether the workload saw the request."""
        return self.received is not None


class Arena:
    """Runs from entering the context to leaving it."""

    def __init__(self, sets: Sequence[PolicySet], directory: Path) -> None:
        self._sets = sets
        self._directory = directory
        self._parts = contextlib.ExitStack()
        self._places = Places(directory=directory, listeners=_free_listeners())

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as parts:
            self._start(parts)
            self._parts = parts.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._parts.close()

    def judge(self, policies: PolicySet, request: Request) -> Mapping[str, Verdict]:
        """What Envoy's own filters and Countersign in each posture answer to a request for the workload of a set."""
        native = oracle(policies.modes(), request.caller, PORTS[request.listener])
        arms = {NATIVE: native, **{posture: posture for posture in POSTURES}}
        return {name: self.ask(arm, policies.name, request) for name, arm in arms.items()}

    def ask(self, arm: str, policies: str, request: Request) -> Verdict:
        """What one arm answers to a request for the workload of a set."""
        try:
            response = self._client.send(request, (ARM_HEADER, f"{arm}/{policies}"))
        except (NoAnswerError, OSError) as error:
            return Verdict(status=0, body=f"{type(error).__name__}: {error}")
        echo = response.header("x-echo")
        if echo is not None:
            return Verdict(status=response.status, received=_received(base64.b64decode(echo)))
        telling = tuple((name, response.header(name)) for name in _TELLING)
        return Verdict(status=response.status, headers=telling, body=response.body.decode("latin-1"))

    def _start(self, parts: contextlib.ExitStack) -> None:
        directory = self._directory
        identities.write(directory)
        policies = directory / "policies.yaml"
        documents = [document for each in self._sets for document in each.documents]
        everything = [*REFUSALS, *self._sets[0].shared, *documents]
        policies.write_text(yaml.safe_dump_all(everything, sort_keys=False), encoding="utf-8")
        _write_json(directory / "envoy.json", arena_config.bootstrap(self._sets, self._places))
        _write_json(directory / "routes.json", arena_config.routes(self._sets))
        parts.enter_context(key_server(tokens.numbered_jwks, tokens.number(DISCOVERED)))
        echo = Path(__file__).with_name("echo.py")
        self._run(parts, "echo", [sys.executable, str(echo), str(self._places.socket("echo"))])
        servers = {posture: _free_port() for posture in POSTURES}
        for posture, probes in servers.items():
            self._run(parts, posture, _countersign(self._places.socket(posture), policies, posture, probes))
        admin = directory / "admin"
        envoy = self._run(parts, "envoy", _envoy(directory / "envoy.json", admin))
        for posture, probes in servers.items():
            _wait(f"starting countersign --posture {posture}", ("127.0.0.1", probes), "/readyz", self._running[posture])
        address = wait_until(
            "starting envoy", lambda: _text(admin) if admin.exists() else None, within=_READY_WITHIN, child=envoy
        )
        host, _, port = address.rpartition(":")
        _wait("starting envoy", (host, int(port)), "/ready", envoy)
        self._client = Client(self._places.listeners, identities.contexts(directory))
        parts.callback(self._client.close)

    def _run(self, parts: contextlib.ExitStack, name: str, command: Sequence[str]) -> Child:
        child = Child(name, command, directory=self._directory)
        parts.callback(child.stop)
        self._running = {**getattr(self, "_running", {}), name: child}
        return child


def _countersign(listen: Path, policies: Path, posture: str, probes: int) -> list[str]:
    command = [sys.executable, "-P", "-m", "countersign", "serve", "--listen", f"unix:{listen}"]
    command += ["--policies", str(policies), "--posture", posture, "--probes", f"127.0.0.1:{probes}"]
    command += ["--remote-ip-hops", str(REMOTE_IP_HOPS)]
    command += ["--trust-domain", MESH.trust_domain, "--root-namespace", MESH.root_namespace]
    return command + [part for alias in MESH.aliases for part in ("--trust-domain-alias", alias)]


def _envoy(configuration: Path, admin: Path) -> list[str]:
    command = [str(find_envoy()), "-c", str(configuration), "--admin-address-path", str(admin)]
    return [*command, "--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]


def _received(head: bytes) -> tuple[str, ...]:
    """The request line, and the headers by name; lines of one name stay in their order."""
    first, *lines = head.decode("latin-1").split("\r\n")
    kept = [line for line in lines if line.partition(":")[0].lower() not in _NOT_COMPARED]
    return (first, *sorted(kept, key=lambda line: line.partition(":")[0].lower()))


def _write_json(file: Path, value: Any) -> None:
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


def _free_listeners() -> Mapping[str, tuple[str, int]]:
    """Fixed ports, for policies name them, on loopback addresses that nobody else uses."""
    for number in itertools.count(os.getpid()):  # trials side by side do not begin with the same one
        host = f"127.77.{number // 256 % 256}.{number % 256}"
        try:
            for port in PORTS.values():
                with socket.socket() as probe:
                    probe.bind((host, port))
        except OSError:
            continue
        return {name: (host, port) for name, port in PORTS.items()}
    raise AssertionError("unreachable: the count has no end")
