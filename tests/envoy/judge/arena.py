"""The arena: one real Envoy, Countersign twice (both postures) and an echoing workload, for a batch of policy sets."""

import base64
import contextlib
import itertools
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.envoy.judge import arena_config, identities, tokens
from tests.envoy.judge.arena_config import ARM_HEADER, Places
from tests.envoy.judge.client import Client, NoAnswerError, Request
from tests.envoy.judge.key_server import DISCOVERED, key_server
from tests.envoy.judge.peers import NATIVE, oracle
from tests.envoy.judge.policy_set import PORTS, REFUSALS, PolicySet
from tests.envoy.judge.processes import POSTURES, Processes, write_json

_NOT_COMPARED: Final = frozenset({ARM_HEADER, "x-request-id"})
_TOO_LATE: Final = (503, "authorization unavailable")
_MORE_TRIES: Final = 2
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
        self.late = 0  # decisions that came too late, and were asked for again
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
        return {name: self._ask_in_time(arm, policies.name, request) for name, arm in arms.items()}

    def _ask_in_time(self, arm: str, policies: str, request: Request) -> Verdict:
        """Ask until there is a decision: one that comes after the check's 150 ms is none, and machines may be busy."""
        verdict = self.ask(arm, policies, request)
        for _ in range(_MORE_TRIES):
            if (verdict.status, verdict.body) != _TOO_LATE:
                break
            self.late += 1
            verdict = self.ask(arm, policies, request)
        return verdict

    def faults(self) -> list[str]:
        """What Countersign has logged of faults of its own."""
        return self._processes.faults()

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
        write_json(directory / "routes.json", arena_config.routes(self._sets))
        parts.enter_context(key_server(tokens.numbered_jwks, tokens.number(DISCOVERED)))
        processes = self._processes = Processes(directory, parts)
        processes.echo(self._places.socket("echo"))
        documents = [document for each in self._sets for document in each.documents]
        everything = [*REFUSALS, *self._sets[0].shared, *documents]
        processes.serve(everything, arena_config.bootstrap(self._sets, self._places))
        self._client = Client(self._places.listeners, identities.contexts(directory))
        parts.callback(self._client.close)


def _received(head: bytes) -> tuple[str, ...]:
    """The request line, and the headers by name; lines of one name stay in their order."""
    first, *lines = head.decode("latin-1").split("\r\n")
    kept = [line for line in lines if line.partition(":")[0].lower() not in _NOT_COMPARED]
    return (first, *sorted(kept, key=lambda line: line.partition(":")[0].lower()))


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
