"""`countersign demo`, end to end by the real command: every row is right, and nothing is left behind."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from countersign.mesh.interrupts import ENDINGS
from countersign.mesh.scenario import SCENARIO

ROOT = Path(__file__).parents[2]
DEMO = [sys.executable, "-P", "-m", "countersign", "demo"]
LIMIT = 60.0  # seconds for anything here, on a busy machine

pytestmark = pytest.mark.envoy


@dataclass
class Playground:
    """A directory for everything that a demo makes, and a look at which processes still use it."""

    directory: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, *options: str) -> subprocess.Popen[str]:
        environment = {**os.environ, "TMPDIR": str(self.directory), "NO_COLOR": "1"}
        output = (self.directory / "output").open("w")
        with output:
            demo = subprocess.Popen(
                [*DEMO, *options], stdout=output, stderr=subprocess.STDOUT, text=True, env=environment
            )
        self.started.append(demo)
        return demo

    def output(self) -> str:
        return (self.directory / "output").read_text()

    def wait_for(self, text: str, demo: subprocess.Popen[str]) -> None:
        deadline = time.monotonic() + LIMIT
        while text not in self.output():
            assert demo.poll() is None, self.output()
            assert time.monotonic() < deadline, self.output()
            time.sleep(0.01)

    def processes(self) -> list[str]:
        """The command lines that name the directory."""
        lines = []
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):  # a process that has just ended
                lines.append(file.read_bytes().decode().replace("\0", " "))
        return [line for line in lines if f"{self.directory}/" in line]

    def meshes(self) -> list[str]:
        return [path.name for path in self.directory.iterdir() if path.name.startswith("cs-")]


@pytest.fixture
def playground() -> Iterator[Playground]:
    # Not pytest's own directory: the path of a unix socket has 107 bytes.
    with tempfile.TemporaryDirectory(prefix="cst-") as directory:
        place = Playground(Path(directory))
        yield place
        for demo in place.started:
            if demo.poll() is None:
                demo.send_signal(signal.SIGTERM)
            demo.wait(LIMIT)


@pytest.fixture(scope="module")
def finished() -> subprocess.CompletedProcess[str]:
    return subprocess.run([*DEMO, "-o", "json"], capture_output=True, text=True, timeout=LIMIT, check=False)


@pytest.fixture(scope="module")
def document(finished: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(finished.stdout)
    return result


def test_every_request_goes_as_it_should(finished: subprocess.CompletedProcess[str], document: dict[str, Any]) -> None:
    assert [(row["title"], row["faults"]) for row in document["rows"] if not row["right"]] == []
    assert (finished.returncode, finished.stderr) == (0, "")


def test_there_are_at_least_sixteen_rows_one_for_each_step(document: dict[str, Any]) -> None:
    assert document["requests"] == document["right"] == len(document["rows"]) >= 16
    assert [row["title"] for row in document["rows"]] == [step.title for step in SCENARIO]


def test_it_takes_less_than_fifteen_seconds(document: dict[str, Any]) -> None:
    assert document["seconds"] < 15


def test_every_deciding_rule_is_named_with_its_line_in_the_committed_files(document: dict[str, Any]) -> None:
    decided = [row for row in document["rows"] if row["policy"]]

    assert decided
    for row in decided:
        name, line = row["source"].split(":")
        text = (ROOT / "envoy" / "policies" / name).read_text().splitlines()
        assert text[int(line) - 1].strip()


def test_a_kept_mesh_answers_the_commands_as_they_are_printed_and_ctrl_c_ends_it(playground: Playground) -> None:
    if shutil.which("curl") is None:
        pytest.skip("the printed commands are curl's")
    demo = playground.start("--keep")
    playground.wait_for("Ctrl-C ends everything", demo)
    printed = re.findall(r"^  # .* \((\d+)\)\n  (curl .*)$", playground.output(), re.MULTILINE)
    answers = []
    for status, command in printed:
        shell = ["/bin/sh", "-c", command]
        answer = subprocess.run(shell, capture_output=True, text=True, timeout=LIMIT, check=False)
        answers.append((command, status, answer.stdout.split(" ")[1:2]))
    kept = playground.processes()
    demo.send_signal(signal.SIGINT)

    assert demo.wait(LIMIT) == 0
    assert len(printed) >= 7
    assert any("--cert " in command for _, command in printed)
    assert [answer for answer in answers if [answer[1]] != answer[2]] == []
    assert len(kept) == 4  # three Envoys and Countersign
    assert playground.processes() == []
    assert playground.meshes() == []


@pytest.mark.parametrize(
    "number",
    [number for number in ENDINGS if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN],  # nohup
)
def test_a_signal_half_way_leaves_nothing_behind(playground: Playground, number: signal.Signals) -> None:
    demo = playground.start()
    deadline = time.monotonic() + LIMIT
    while not playground.processes():
        assert demo.poll() is None, playground.output()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    demo.send_signal(number)

    assert demo.wait(LIMIT) == 130
    assert playground.processes() == []
    assert playground.meshes() == []
    assert "Traceback" not in playground.output()


@pytest.mark.parametrize(
    ("file", "before", "after", "told"),
    [
        ("sleep.yaml", "static_resources:", "static_resource:", "starting envoy-sleep: envoy-sleep exited with 1"),
        ("edge.yaml", "port_value: 8080", "port_value: 8081", "no place for the address `0.0.0.0:8081`"),
        ("httpbin.yaml", "/run/mesh/certs/httpbin/tls.key", "/run/mesh/key", "no place for the path `/run/mesh/key`"),
        (
            "policies/deny-legacy.yaml",
            "action: DENY",
            "action: DENIED",
            "starting countersign: countersign exited with 1",
        ),
        ("policies/deny-legacy.yaml", "action: DENY", "action: DENIED", "deny-legacy.yaml:11:"),
    ],
)
def test_a_broken_part_is_named_and_nothing_is_left_behind(
    playground: Playground, file: str, before: str, after: str, told: str
) -> None:
    configurations = playground.directory / "envoy"
    shutil.copytree(ROOT / "envoy", configurations)
    text = (configurations / file).read_text()
    assert before in text
    (configurations / file).write_text(text.replace(before, after))
    demo = playground.start("--configs", str(configurations))

    assert demo.wait(LIMIT) == 3
    assert told in playground.output()
    assert "Traceback" not in playground.output()
    assert playground.processes() == []
    assert playground.meshes() == []


def test_a_directory_without_configurations_is_one_clear_line(playground: Playground) -> None:
    demo = playground.start("--configs", str(playground.directory))

    assert demo.wait(LIMIT) == 3
    assert playground.output().splitlines() == [
        f"countersign demo: {playground.directory}: no httpbin.yaml there; name the repository's envoy/ with --configs"
    ]
