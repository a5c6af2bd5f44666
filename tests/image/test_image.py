"""The built image: what is in it, that it is built alike twice, and that compose's services run from it."""

import contextlib
import json
import os
import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from countersign.mesh.certificates import WORKLOADS as CERTIFIED
from countersign.mesh.envoy import Envoy
from countersign.mesh.process import wait_until
from countersign.mesh.relocate import Places

from tests.image.container import Container, Image, buildah, configuration

ROOT = Path(__file__).parents[2]
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
TAG = "countersign:local"
AGAIN = "countersign:again"
ANY = ("127.0.0.1", 0)


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    container = buildah("from", "--pull-never", TAG)
    try:
        yield Image(Path(buildah("mount", container)), configuration(TAG)["config"])
    finally:
        buildah("rm", container)


def test_built_twice_every_layer_is_the_same() -> None:
    first, second = configuration(TAG), configuration(AGAIN)

    assert len(first["rootfs"]["diff_ids"]) > 1
    assert first["rootfs"] == second["rootfs"]


def test_the_image_says_what_it_is(image: Image) -> None:
    labels = image.config["Labels"]

    assert image.user == (65532, 65532)
    assert image.config["Entrypoint"] == ["countersign"]
    assert image.config["Healthcheck"]["Test"] == ["CMD", "countersign", "health"]
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert len(labels["org.opencontainers.image.revision"]) == 40
    assert not any("PIP" in each for each in image.config["Env"])


def test_there_is_no_compiler_no_pip_of_ours_and_nothing_left_of_the_build(image: Image) -> None:
    names = {path.name for folder in ("usr/bin", "opt/countersign/bin") for path in (image.root / folder).iterdir()}

    assert not names & {"cc", "gcc", "c++", "g++", "clang", "ld", "as", "make", "pip", "pip3"}
    assert not (image.packages / "pip").exists()
    assert not list((image.root / "tmp").iterdir())
    assert not [path for path in ("src", "volumes", "opt/build", "root/.cache") if (image.root / path).exists()]


def test_nothing_in_the_image_can_be_changed_by_its_user_but_its_volumes(image: Image) -> None:
    """Nor become another user: no file is set-uid where the user could run it into anything of ours."""
    ours = [image.root / "opt", *(image.root / "opt").rglob("*")]
    writable = [path for path in ours if not path.is_symlink() and path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH)]

    assert not writable
    assert {path.lstat().st_uid for path in ours} == {0}
    for volume in ("run/countersign", "run/mesh/certs", "run/issuer", "run/decisions"):
        status = (image.root / volume).stat()
        assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (65532, 65532, 0o700)


def test_the_bill_of_materials_lists_what_is_installed(image: Image) -> None:
    bill = json.loads((image.root / "opt/countersign/share/countersign/sbom.cdx.json").read_text())
    listed = {f"{part['name']}-{part['version']}".lower().replace("-", "_") for part in bill["components"]}
    installed = {path.stem.lower().replace("-", "_") for path in image.packages.glob("*.dist-info")}

    assert bill["bomFormat"] == "CycloneDX"
    assert listed == {name for name in installed if not name.startswith("countersign_")}
    assert bill["metadata"]["component"]["name"] == "countersign"


def test_bytecode_is_there_for_all_that_starts_and_needs_no_look_at_its_source(image: Image) -> None:
    """Python's own library too: compiling it anew at each start costs more than all the rest of a health check."""
    assert "PYTHONPYCACHEPREFIX=/opt/countersign/bytecode" in image.config["Env"]
    bytecode = image.root / "opt/countersign/bytecode"
    compiled = {path.relative_to(bytecode).with_name(path.name.split(".")[0]) for path in bytecode.rglob("*.pyc")}
    sources = {path.relative_to(image.root).with_suffix("") for path in (image.packages / "countersign").rglob("*.py")}
    (argparse,) = bytecode.rglob("argparse.*.pyc")

    assert sources <= compiled
    assert argparse.read_bytes()[4:8] == b"\x01\x00\x00\x00"  # unchecked, by hash (PEP 552)


def test_the_wheel_brings_the_configurations_of_the_demo(image: Image) -> None:
    shipped = image.packages / "countersign" / "mesh" / "envoy"
    files = {path.relative_to(shipped): path.read_text() for path in shipped.rglob("*.yaml")}

    assert files == {path.relative_to(ROOT / "envoy"): path.read_text() for path in (ROOT / "envoy").rglob("*.yaml")}


@dataclass
class Composed:
    """The services of docker-compose.yml, as far as they have been started."""

    image: Image
    directory: Path
    parts: contextlib.ExitStack
    volumes: dict[str, Path] = field(default_factory=dict)
    running: dict[str, Container] = field(default_factory=dict)
    envoys: dict[str, Envoy] = field(default_factory=dict)

    def start(self, name: str, command: list[str] | None = None) -> Container:
        """As compose does: its command, its volumes; each new volume takes owner and mode from the image."""
        service = SERVICES[name]
        assert (service["user"], service["read_only"]) == (self.image.config["User"], True)
        mounts = {"/etc/hosts": self.directory / "hosts"}
        read_only = set()
        for volume in service.get("volumes", ()):
            source, inside, *how = volume.split(":")
            if how == ["ro"]:
                read_only.add(inside)
            mounts[inside] = ROOT / source if source.startswith(".") else self._volume(source, inside)
        container = Container(self.image, name, command or service["command"], mounts, self.directory, read_only)
        self.parts.callback(container.stop)
        self.running[name] = container
        if "test" in service["healthcheck"]:
            container.wait_healthy(service["healthcheck"]["test"])
        return container

    def _volume(self, name: str, inside: str) -> Path:
        if name not in self.volumes:
            status = (self.image.root / inside.removeprefix("/")).stat()
            made = self.directory / name
            made.mkdir()
            os.chown(made, status.st_uid, status.st_gid)
            made.chmod(stat.S_IMODE(status.st_mode))
            self.volumes[name] = made
        return self.volumes[name]

    def envoy(self, name: str, addresses: Mapping[str, tuple[str, int]]) -> None:
        """An Envoy with compose's own file, on free ports: here they share one address."""
        paths = {"/run/countersign": self.volumes["authz"], "/run/mesh/certs": self.volumes["certs"]}
        places = Places(addresses={"127.0.0.1:9901": ANY, **addresses}, paths=paths)
        self.envoys[name] = self.parts.enter_context(Envoy(ROOT / "envoy" / f"{name}.yaml", places, self.directory))
        self.envoys[name].wait_ready()

    def demo(self) -> tuple[int, dict[str, Any]]:
        """Compose's `demo`, but for the ports of the Envoys; its exit code, and its rows."""
        ports = {
            f"{host}:{port}": f"{host}:{self.envoys[name].port(listener)}"
            for name, host, port, listener in (
                ("sleep", "envoy-sleep", 15001, "outbound"),
                ("edge", "envoy-edge", 8080, "edge"),
                ("httpbin", "httpbin", 15006, "inbound"),
            )
        }
        command = [ports.pop(word, word) for word in SERVICES["demo"]["command"]]
        assert not ports
        container = self.start("demo", [command[0], "--output", "json", *command[1:]])
        code = container.ended()
        output = container.child.output
        assert container.child.log.read_text() == ""
        rows: dict[str, Any] = json.loads(output.read_text())
        output.unlink()
        return code, rows


@pytest.fixture(scope="module")
def composed(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Composed]:
    directory = tmp_path_factory.mktemp("compose")
    (directory / "hosts").write_text("127.0.0.1 localhost issuer upstream httpbin envoy-sleep envoy-edge\n")
    with contextlib.ExitStack() as parts:
        mesh = Composed(image, directory, parts)
        assert mesh.start("certificates").ended() == 0
        for name in ("issuer", "upstream", "countersign"):
            mesh.start(name)
        mesh.envoy("httpbin", {"0.0.0.0:15006": ANY, "upstream:8080": ("127.0.0.1", 8080)})
        inbound = {"httpbin:15006": ("127.0.0.1", mesh.envoys["httpbin"].port("inbound"))}
        mesh.envoy("sleep", {"0.0.0.0:15001": ANY, **inbound})
        mesh.envoy("edge", {"0.0.0.0:8080": ANY, **inbound})
        yield mesh


@pytest.mark.parametrize("run", ["the first", "once more, after keys were rotated"])
def test_the_demo_of_compose_shows_every_row_that_needs_no_host(composed: Composed, run: str) -> None:
    code, shown = composed.demo()

    assert [(row["title"], row["faults"]) for row in shown["rows"] if not row["right"]] == [], run
    assert (code, shown["requests"], shown["right"]) == (0, 26, 26)


def test_the_processes_are_pid_1_of_the_images_user_without_a_privilege_and_write_nowhere(composed: Composed) -> None:
    container = composed.running["countersign"]
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{container.pid}/status").read_text().splitlines() if ":\t" in line
    )

    assert status["NSpid"].split()[-1] == "1"
    assert (set(status["Uid"].split()), set(status["Gid"].split())) == ({"65532"}, {"65532"})
    assert (int(status["CapEff"], 16), status["NoNewPrivs"]) == (0, "1")
    tried = container.execute("python", "-c", "open('/opt/countersign/x', 'w')")
    assert "Read-only file system" in tried.stderr
    assert container.execute("python", "-c", "open('/tmp/x', 'w')").returncode == 0


def test_the_certificates_are_their_owners_alone(composed: Composed) -> None:
    keys = [composed.volumes["certs"] / each.name / "tls.key" for each in CERTIFIED]

    assert {(key.stat().st_uid, stat.S_IMODE(key.stat().st_mode)) for key in keys} == {(65532, 0o600)}


def test_health_tells_a_ready_container_from_one_that_was_ended(
    composed: Composed, image: Image, tmp_path: Path
) -> None:
    # Another one, so that the mesh goes on: its probes are elsewhere, its policies and socket its own.
    (tmp_path / "policies").mkdir(mode=0o755)
    shutil.copy(ROOT / "envoy" / "policies" / "peer-authentication.yaml", tmp_path / "policies")
    (tmp_path / "run").mkdir()
    os.chown(tmp_path / "run", *image.user)
    volumes = {"/etc/countersign/policies": tmp_path / "policies", "/run/countersign": tmp_path / "run"}
    probes = "127.0.0.1:18282"
    command = ["serve", "--listen", "unix:/run/countersign/authz.sock", "--policies", "/etc/countersign/policies"]
    command += ["--trust-domain", "cluster.local", "--root-namespace", "istio-system", "--probes", probes]
    command += ["--admin", "off"]
    started = time.monotonic()
    container = Container(image, "another", command, volumes, tmp_path)
    health = ("countersign", "health", "--probes", probes)
    try:
        wait_until("health", lambda: container.execute(*health).returncode == 0 or None, within=20)
        print(f"healthy {time.monotonic() - started:.2f} s after its start")  # noqa: T201 (a figure, for -rP)
        assert (tmp_path / "run" / "authz.sock").is_socket()
        assert container.stop() == 0
    finally:
        container.stop()
    assert composed.running["countersign"].execute(*health).returncode == 3  # nobody answers there any more
