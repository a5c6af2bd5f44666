"""The processes of the mesh: started with their output in files, waited for with a limit, ended by their own pid."""

import contextlib
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

_POLL: Final = 0.005  # seconds: below what a person or a test would notice
_GRACE: Final = 5.0  # seconds from SIGTERM to SIGKILL
_TAIL: Final = 12  # lines of a log that an error quotes

T = TypeVar("T")


class MeshError(RuntimeError):
    """A part of the mesh did not do what it must; the message names the part."""


class Child:
    """One process. Standard output and standard error go to files of their own."""

    def __init__(self, name: str, command: Sequence[str], *, directory: Path) -> None:
        self.name = name
        self.output = directory / f"{name}.out"
        self.log = directory / f"{name}.log"
        with self.output.open("ab") as output, self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=log,
                start_new_session=True,  # a Ctrl-C is ours to pass on, in the right order
            )

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def last_lines(self) -> str:
        """The end of both outputs, ready to be appended to a message."""
        lines: list[str] = []
        for file in (self.output, self.log):
            lines += file.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL:]
        return "".join(f"\n    {line}" for line in lines) or " (it wrote nothing)"

    def stop(self, grace: float = _GRACE) -> int:
        """SIGTERM, and SIGKILL after the grace. Give the exit code; ending twice is harmless."""
        self._signal(signal.SIGTERM)
        try:
            return self._process.wait(grace)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            return self._process.wait(_GRACE)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)


def wait_until(wish: str, probe: Callable[[], T | None], *, within: float, child: Child | None = None) -> T:
    """Poll until the probe gives something. Raise `MeshError` at the limit, or as soon as the child has ended."""
    deadline = time.monotonic() + within
    while (found := probe()) is None:
        if child is not None and child.exit_code is not None:
            raise MeshError(f"{wish}: {child.name} exited with {child.exit_code}; it said:{child.last_lines()}")
        if time.monotonic() > deadline:
            said = f"; {child.name} said:{child.last_lines()}" if child is not None else ""
            raise MeshError(f"{wish}: not within {within:g} s{said}")
        time.sleep(_POLL)
    return found
