"""The arena for raw TCP: opens connections, and says whether the workload was reached."""

import contextlib
import os
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.envoy.judge import identities, tcp_config
from tests.envoy.judge.client import Request
from tests.envoy.judge.identities import PLAINTEXT
from tests.envoy.judge.peers import REFUSED, oracle
from tests.envoy.judge.policy_set import PORTS, PolicySet
from tests.envoy.judge.processes import POSTURES, Processes
from tests.envoy.judge.tcp_config import ARMS, TcpPlaces

_TIMEOUT: Final = 10.0
_HEAD: Final = Request().head()  # the workload answers it; for Envoy it is any octets
_ANSWER: Final = b"HTTP/1.1 200"


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """Who connects, from where, to which port (by the listener's name), with which SNI."""

    caller: str
    source: str
    listener: str
    sni: str


class TcpArena:
    """Runs from entering the context to leaving it. The first set is of the namespace that plaintext is for."""

    def __init__(self, sets: Sequence[PolicySet], directory: Path) -> None:
        self._sets = sets
        self._directory = directory
        self._parts = contextlib.ExitStack()
        arms = [(arm, each.name) for each in sets for arm in ARMS]
        self._hosts = dict(zip(arms, _free_hosts(len(arms)), strict=True))

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as parts:
            servers = {each.name: f"spiffe://cluster.local/ns/{each.name}/sa/web" for each in self._sets}
            identities.write(self._directory, servers)
            processes = Processes(self._directory, parts)
            processes.echo(self._directory / "echo.sock")
            documents = [document for each in self._sets for document in each.documents]
            places = TcpPlaces(directory=self._directory, hosts=self._hosts)
            configuration = tcp_config.bootstrap(self._sets, places)
            namespace = ("--namespace", self._sets[0].name)
            processes.serve([*self._sets[0].shared, *documents], configuration, *namespace)
            self._contexts = identities.contexts(self._directory)
            self._parts = parts.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._parts.close()

    def judge(self, policies: PolicySet, connection: Connection) -> tuple[bool, Mapping[str, bool]]:
        """Whether the connection must come through, and whether it does behind Countersign in each posture."""
        arm = oracle(policies.modes(), connection.caller, PORTS[connection.listener])
        native = arm != REFUSED and self._ask(arm, policies.name, connection)
        return native, {posture: self._ask(posture, policies.name, connection) for posture in POSTURES}

    def _ask(self, arm: str, policies: str, connection: Connection) -> bool:
        address = (self._hosts[arm, policies], PORTS[connection.listener])
        source = (connection.source, 0)
        with socket.create_connection(address, timeout=_TIMEOUT, source_address=source) as plain:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                return _reaches(plain, connection, self._contexts)
            except (ConnectionError, ssl.SSLEOFError):
                return False


def _reaches(plain: socket.socket, connection: Connection, contexts: Mapping[str, ssl.SSLContext]) -> bool:
    if connection.caller == PLAINTEXT:
        return _answered(plain)
    with contexts[connection.caller].wrap_socket(plain, server_hostname=connection.sni or None) as encrypted:
        return _answered(encrypted)


def _answered(stream: socket.socket) -> bool:
    stream.sendall(_HEAD)
    answer = stream.recv(len(_ANSWER))
    assert answer in (b"", _ANSWER), answer
    return bool(answer)


def _free_hosts(count: int) -> list[str]:
    """Loopback addresses that nobody uses; trials side by side do not begin with the same one."""
    found: list[str] = []
    number = os.getpid() * 509
    while len(found) < count:
        number += 1
        host = f"127.78.{number // 250 % 250}.{number % 250 + 1}"
        try:
            for port in PORTS.values():
                with socket.socket() as probe:
                    probe.bind((host, port))
        except OSError:
            continue
        found.append(host)
    return found
