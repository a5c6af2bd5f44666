"""Processes are waited for with a limit, and an error says which one failed and what it said."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from countersign.mesh.process import Child, MeshError, wait_until

SLEEPER = "print('up', flush=True)\nwhile True: time.sleep(60)"
STUBBORN = f"signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{SLEEPER}"


class Starter:
    """Starts children of a test, and ends those that it left."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.children: list[Child] = []

    def __call__(self, program: str) -> Child:
        command = [sys.executable, "-S", "-c", f"import signal, sys, time\n{program}"]
        child = Child("part", command, directory=self.directory)
        self.children.append(child)
        return child


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Starter]:
    starter = Starter(tmp_path)
    yield starter
    for child in starter.children:
        child.stop(grace=0)


def _said_up(child: Child) -> bool | None:
    return "up" in child.output.read_text() or None


def test_waiting_gives_what_the_probe_found(start: Starter) -> None:
    child = start(SLEEPER)

    assert wait_until("starting", lambda: _said_up(child), within=10, child=child) is True
    assert child.exit_code is None


def test_waiting_ends_at_the_limit_and_names_the_part(start: Starter) -> None:
    child = start(SLEEPER)
    wait_until("starting", lambda: _said_up(child), within=10, child=child)

    with pytest.raises(MeshError, match=r"opening: not within 0\.02 s; part said:\n    up"):
        wait_until("opening", lambda: None, within=0.02, child=child)


def test_waiting_without_a_process_ends_at_the_limit_too() -> None:
    with pytest.raises(MeshError, match=r"opening: not within 0\.02 s"):
        wait_until("opening", lambda: None, within=0.02)


def test_waiting_ends_as_soon_as_the_process_has(start: Starter) -> None:
    child = start("sys.exit('no such file')")

    with pytest.raises(MeshError, match=r"starting: part exited with 1; it said:\n    no such file"):
        wait_until("starting", lambda: None, within=10, child=child)


def test_a_process_ends_by_sigterm(start: Starter) -> None:
    child = start(SLEEPER)

    assert child.stop() == -signal.SIGTERM
    assert child.stop() == -signal.SIGTERM  # twice is harmless


def test_a_process_that_ignores_sigterm_ends_by_sigkill(start: Starter) -> None:
    child = start(STUBBORN)
    wait_until("starting", lambda: _said_up(child), within=10, child=child)

    assert child.stop(grace=0.05) == -signal.SIGKILL


def test_a_process_that_writes_nothing_is_said_to(start: Starter) -> None:
    child = start("sys.exit(0)")
    with pytest.raises(MeshError, match=r"exited with 0; it said: \(it wrote nothing\)"):
        wait_until("starting", lambda: None, within=10, child=child)


def test_a_command_that_does_not_exist_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises((OSError, subprocess.SubprocessError)):
        Child("part", [str(tmp_path / "missing")], directory=tmp_path)
