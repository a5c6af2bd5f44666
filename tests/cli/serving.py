"""`countersign serve` as a user starts it: a process of its own."""

import random
import socket
import sys
from contextlib import ExitStack, closing
from pathlib import Path
from types import TracebackType
from typing import Self

from countersign.edge.addresses import UnixAddress
from countersign.mesh.process import Child, wait_until

from tests.edge.probing import ask


def free_port() -> int:
    """A port that was free a moment ago."""
    with closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def consecutive_ports(count: int) -> int:
    """The first of so many ports, all free, and none that the system gives to connections which somebody opens."""
    begin = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        first = random.randrange(begin // 2, begin - count)  # noqa: S311 (no secret)
        with ExitStack() as held:
            try:
                for port in range(first, first + count):
                    held.enter_context(closing(socket.socket())).bind(("127.0.0.1", port))
            except OSError:
                continue
            return first


class Serve:
    """The running process, from entering the context to leaving it."""

    def __init__(self, directory: Path, policies: Path | str, *flags: str) -> None:
        self.address = UnixAddress(str(directory / "authz.sock"))
        self._directory = directory
        self.port = free_port()
        self._command = [
            *(sys.executable, "-m", "countersign", "serve", "--policies", str(policies)),
            *("--listen", str(self.address), "--probes", f"127.0.0.1:{self.port}", *flags),
        ]

    def __enter__(self) -> Self:
        self.child = Child("serve", self._command, directory=self._directory)
        wait_until("starting", self._alive, within=20, child=self.child)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.child.stop()

    def _alive(self) -> bool | None:
        try:
            return ask(self.port, "/livez")[0] == 200 or None
        except OSError:
            return None

    def ready(self) -> str:
        """What /readyz says."""
        return ask(self.port, "/readyz")[1]

    def wait_for_log(self, text: str) -> None:
        """Return once the log has the text."""
        wait_until(f"logging `{text}`", lambda: text in self.log or None, within=10, child=self.child)

    @property
    def log(self) -> str:
        """Everything logged so far."""
        return self.child.log.read_text()
