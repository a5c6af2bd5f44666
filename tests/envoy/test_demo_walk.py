"""`countersign demo walk`, by the real command: what docker compose's `demo` shows, of a mesh on this machine."""

import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from countersign.mesh.composed import LEFT_OUT, WALK
from countersign.mesh.mesh import Mesh, running_mesh
from countersign.mesh.minter import minting
from countersign.mesh.scenario import EDIT, EDITED_FILE, SCENARIO, Change

ROOT = Path(__file__).parents[2]
WALKING = [sys.executable, "-P", "-m", "countersign", "demo"]
COOLDOWN = yaml.safe_load((ROOT / "envoy" / "settings" / "countersign.yaml").read_text())["keys"]["cooldown"]
LIMIT = 60.0  # seconds for all requests, on a busy machine

pytestmark = pytest.mark.envoy


@dataclass(frozen=True)
class Place:
    """A running mesh that could be compose's: with an issuer to ask, and a log of decisions."""

    mesh: Mesh
    minter: Path
    decisions: Path

    def walk(self, *options: str, edge: int | None = None) -> subprocess.CompletedProcess[str]:
        ports = {name: self.mesh.port(name) for name in ("sleep", "edge", "httpbin")}
        ports["edge"] = edge or ports["edge"]
        command = [*WALKING, *options, "walk"]
        command += [word for name, port in ports.items() for word in (f"--{name}", f"127.0.0.1:{port}")]
        command += ["--certificates", str(self.mesh.certificates), "--policies", str(self.mesh.policies)]
        command += ["--minter", str(self.minter), "--decisions", str(self.decisions)]
        return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="cs-") as name:
        decisions, minter = Path(name) / "decisions.jsonl", Path(name) / "mint.sock"
        patch.setenv("COUNTERSIGN_AUDIT_LOG", f"file:{decisions}")  # `make demo` has no log
        patch.setenv("COUNTERSIGN_KEYS_COOLDOWN", COOLDOWN)
        with running_mesh(ROOT / "envoy") as mesh, minting(mesh.issuer, minter):
            yield Place(mesh, minter, decisions)


def test_every_row_that_needs_no_host_is_right_twice(place: Place) -> None:
    for _ in range(2):
        done = place.walk("--output", "json")
        shown = json.loads(done.stdout)

        assert [(row["title"], row["faults"]) for row in shown["rows"] if not row["right"]] == []
        assert (done.returncode, done.stderr) == (0, "")
        assert [row["title"] for row in shown["rows"]] == [step.title for step in WALK]
        assert shown["rows"][0]["source"].startswith("allow-workloads.yaml:")


def test_the_table_is_followed_by_what_is_left_out_and_shows_no_token(place: Place) -> None:
    lines = place.walk().stdout.splitlines()

    assert lines[0].split()[:3] == ["caller", "request", "token"]
    assert any(line.startswith("26 of 26 requests went as they should") for line in lines)
    assert "3 of the scenario's 29 requests are left out, for they need the host. There:" in lines
    assert "  docker compose stop countersign" in lines
    assert not [line for line in lines if "eyJ" in line]


def test_one_wrong_row_is_enough_for_exit_code_1(place: Place) -> None:
    """Users who come through sleep's sidecar and not through the edge are not let in as the gateway's."""
    done = place.walk(edge=place.mesh.port("sleep"))

    assert done.returncode == 1
    assert "WRONG" in done.stdout
    assert "policy: expected 'ns[apps]-policy[users]-rule[0]', got 'ns[apps]-policy[readers]-rule[0]'" in done.stdout


def test_what_is_left_out_is_what_the_host_does_and_nothing_else() -> None:
    assert [step.change for step, _ in LEFT_OUT] == [Change.EDIT_POLICY, Change.STOP, Change.START]
    assert len(WALK) + len(LEFT_OUT) == len(SCENARIO)


def test_the_edit_that_is_left_to_the_host_is_the_one_of_the_scenario(tmp_path: Path) -> None:
    (command,) = [command for step, command in LEFT_OUT if step.change is Change.EDIT_POLICY]
    file = tmp_path / "envoy" / "policies" / EDITED_FILE
    file.parent.mkdir(parents=True)
    before = (ROOT / "envoy" / "policies" / EDITED_FILE).read_text()
    file.write_text(before)
    subprocess.run(shlex.split(command), cwd=tmp_path, timeout=LIMIT, check=True)

    assert file.read_text() == before.replace(*EDIT) != before


def test_a_mesh_without_its_issuer_is_an_error_that_names_it(place: Place, tmp_path: Path) -> None:
    done = Place(place.mesh, tmp_path / "mint.sock", place.decisions).walk()

    assert done.returncode == 3
    assert done.stderr.startswith(f"countersign demo: the issuer, at {tmp_path / 'mint.sock'}: ")
    assert "Traceback" not in done.stderr
