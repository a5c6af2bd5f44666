"""The servers that are compared, each a process of its own on one core."""

import contextlib
import itertools
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from countersign.mesh.process import Child, wait_until
from countersign.wire import auth_pb2

from bench.http2 import Exchange, Load, LoadError

_HERE: Final = Path(__file__).parent
_READY_WITHIN: Final = 120.0
_BUILD_WITHIN: Final = 900.0
_FIRST_ANSWER: Final = 5.0
_ALLOWED: Final = bytes.fromhex("0a00")  # CheckResponse{status: {}}, as Countersign begins each allow


class LeftOutError(RuntimeError):
    """An arm cannot be had on this machine; the message says why."""


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
    address: Path
    started_in: float  # seconds from the start of the process to its first right answer

    def cpu(self) -> float:
        """Seconds of CPU that all its threads have used."""
        total = 0
        for task in Path(f"/proc/{self.child.pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                total += int((task / "schedstat").read_text(encoding="ascii").split()[0])
        return total / 1e9

    def memory(self) -> float:
        """Its resident set, in MB (10^6 octets)."""
        text = Path(f"/proc/{self.child.pid}/status").read_text(encoding="ascii")
        return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmRSS")) * 1024 / 1e6


@contextlib.contextmanager
def running(name: str, command: Sequence[str], directory: Path, cpu: int, first: Exchange) -> Iterator[Server]:
    """A server on ``<directory>/<name>.sock``, pinned to one core, until the context ends."""
    address = directory / f"{name}.sock"
    address.unlink(missing_ok=True)
    began = time.perf_counter()
    child = Child(name, ["taskset", "-c", str(cpu), *command], directory=directory)
    try:
        wait_until(f"starting {name}", lambda: _allows(address, first), within=_READY_WITHIN, child=child)
        yield Server(child, address, time.perf_counter() - began)
    finally:
        child.stop()


def _allows(address: Path, first: Exchange) -> bool | None:
    if not address.exists():
        return None
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


def noop(kind: str, address: Path) -> list[str]:
    """A server of ours that does nothing: ``native`` or ``grpcio``."""
    return [sys.executable, str(_HERE / f"noop_{kind}.py"), f"unix:{address}", _ALLOWED.hex()]


def countersign(address: Path, policies: Path, probes: int, *flags: str) -> list[str]:
    """Countersign as its users start it."""
    command = [sys.executable, "-P", "-m", "countersign", "serve", "--listen", f"unix:{address}"]
    return [*command, "--policies", str(policies), "--probes", f"127.0.0.1:{probes}", "--admin", "off", *flags]


def go_program(name: str, directory: Path) -> Path:
    """Build one of `bench/go`. Its dependencies come from the Go module proxy. Raise `LeftOutError` without them."""
    go = shutil.which("go")
    if go is None:
        raise LeftOutError("no Go toolchain")
    binary = directory / f"go-{name}"
    _build([go, "build", "-o", str(binary), f"./{name}"], cwd=_HERE / "go")
    return binary


def _build(command: list[str], cwd: Path) -> None:
    result = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=_BUILD_WITHIN, check=False,
    )  # fmt: skip
    if result.returncode:
        said = result.stderr.strip().splitlines() or ["(nothing)"]
        raise LeftOutError(f"`{' '.join(command[1:])}` failed: {said[-1].strip()}")
