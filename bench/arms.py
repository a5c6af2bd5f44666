"""The servers that are compared, each a process of its own on one core."""

import contextlib
import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from countersign.mesh.process import Child, wait_until
from countersign.wire import auth_pb2

from bench.http2 import Address, Exchange, Load, LoadError

_HERE: Final = Path(__file__).parent
_READY_WITHIN: Final = 120.0
_FIRST_ANSWER: Final = 5.0
_ALLOWED: Final = bytes.fromhex("0a00")  # CheckResponse{status: {}}, as Countersign begins each allow


def by_decision(_status: int, data: bytes) -> str:
    """What an answer to a check is called: its google.rpc.Status, behind gRPC's five octets."""
    if data[5:7] == _ALLOWED:
        return "allow"
    response = auth_pb2.CheckResponse.FromString(data[5:])
    return "allow" if response.status.code == 0 else "deny"


@dataclass(slots=True)
class Server:
    """A running authorizer."""

    child: Child
    address: Address
    started_in: float  # seconds from the start of the process to its first right answer

    def cpu(self) -> float:
        """Seconds of CPU that all its threads have used."""
        return sum(self.cpu_by_thread().values())

    def cpu_by_thread(self) -> dict[tuple[str, str], float]:
        """Seconds of CPU, by a thread's name and number."""
        found = {}
        for task in Path(f"/proc/{self.child.pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                name, spent = ((task / file).read_text(encoding="ascii") for file in ("comm", "schedstat"))
                found[name.strip(), task.name] = int(spent.split()[0]) / 1e9
        return found

    def memory(self) -> float:
        """Its resident set, in MB (10^6 octets)."""
        text = Path(f"/proc/{self.child.pid}/status").read_text(encoding="ascii")
        return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmRSS")) * 1024 / 1e6


@contextlib.contextmanager
def running(
    name: str, command: Sequence[str], directory: Path, cpu: int, first: Exchange, at: Address | None = None
) -> Iterator[Server]:
    """A server ``at`` an address, ``<directory>/<name>.sock`` unless given, on one core, until the context ends."""
    address = at or directory / f"{name}.sock"
    if isinstance(address, Path):
        address.unlink(missing_ok=True)
    began = time.perf_counter()
    child = Child(name, ["taskset", "-c", str(cpu), *command], directory=directory)
    try:
        wait_until(f"starting {name}", lambda: _allows(address, first), within=_READY_WITHIN, child=child)
        yield Server(child, address, time.perf_counter() - began)
    finally:
        child.stop()


def _allows(address: Address, first: Exchange) -> bool | None:
    try:
        load = Load(address, by_decision)
    except OSError:
        return None
    try:
        return load.closed_loop(itertools.repeat(first), _FIRST_ANSWER, 1, at_most=1).answers["allow"] == 1 or None
    except (LoadError, OSError):
        return None
    finally:
        load.close()


def noop(kind: str, address: Address) -> list[str]:
    """A server of ours that does nothing: ``native`` or ``grpcio``."""
    return [sys.executable, str(_HERE / f"noop_{kind}.py"), _listen(address), _ALLOWED.hex()]


def countersign(address: Address, policies: Path, probes: int, *flags: str) -> list[str]:
    """Countersign as its users start it."""
    command = [sys.executable, "-P", "-m", "countersign", "serve", "--listen", _listen(address)]
    return [*command, "--policies", str(policies), "--probes", f"127.0.0.1:{probes}", "--admin", "off", *flags]


def _listen(address: Address) -> str:
    return f"unix:{address}" if isinstance(address, Path) else ":".join(map(str, address))
