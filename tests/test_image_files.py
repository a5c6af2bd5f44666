"""What the image is made of, as far as files say it; `make image-test` tests the built one."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from countersign.cli import demo
from countersign.mesh.composed import WALK
from countersign.mesh.scenario import SCENARIO
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text()
WANTED = {
    "requirements.lock": [
        *PROJECT["project"]["dependencies"],
        *(each for extra in ("kubernetes", "otel") for each in PROJECT["project"]["optional-dependencies"][extra]),
    ],
    "build.lock": [*PROJECT["build-system"]["requires"], *PROJECT["project"]["optional-dependencies"]["image"]],
}


def _locked(name: str) -> list[tuple[Requirement, int]]:
    """Each pinned requirement of a lock file, and how many hashes it has."""
    text = (ROOT / "deploy" / "image" / name).read_text()
    logical = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE)).splitlines()
    return [(Requirement(line.split(" --hash=")[0].strip()), line.count(" --hash=sha256:")) for line in logical]


@pytest.mark.parametrize("name", WANTED)
def test_each_dependency_is_locked_to_a_version_that_pyproject_accepts(name: str) -> None:
    locked = {canonicalize_name(each.name): each for each, _ in _locked(name)}
    wanted = [Requirement(each) for each in WANTED[name]]

    stale = [str(each) for each in wanted if not _accepts(each, locked.get(canonicalize_name(each.name)))]
    assert stale == [], "run `make lock`"


def _accepts(wanted: Requirement, locked: Requirement | None) -> bool:
    if locked is None:
        return False
    ((operator, version),) = ((each.operator, each.version) for each in locked.specifier)
    return operator == "==" and wanted.specifier.contains(version)


@pytest.mark.parametrize("name", WANTED)
def test_whatever_is_locked_has_a_hash_and_no_place(name: str) -> None:
    text = (ROOT / "deploy" / "image" / name).read_text()

    assert [str(each) for each, hashes in _locked(name) if hashes < 1] == []
    assert "://" not in text
    assert not re.search(r"^\s*-(?!-hash=)", text, re.MULTILINE)


def test_the_image_installs_what_is_locked_and_nothing_else() -> None:
    steps = DOCKERFILE.replace("\\\n", " ")
    installs = re.findall(r"pip (?:--python \S+ )?(?:install|wheel) [^&\n]*", steps)

    assert len(installs) == 4
    for each in installs:
        assert ("--require-hashes" in each and ".lock" in each) or ("--no-deps" in each), each
    assert [each for each in installs if "wheel" in each] == [
        each for each in installs if "--no-build-isolation" in each
    ]


def test_the_stage_that_is_shipped_runs_nothing_while_it_is_built() -> None:
    """What the build mounts or is told, such as the CA of a proxy, cannot stay in it."""
    shipped = DOCKERFILE.split("\nFROM ")[2]

    assert not re.search(r"^RUN", shipped, re.MULTILINE)
    assert "PIP_" not in shipped


def test_the_wheel_has_the_configurations_where_the_demo_looks_for_them() -> None:
    included = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]

    assert (ROOT / "envoy" / "httpbin.yaml").is_file()
    assert (ROOT / "server" / included["envoy"]) == demo._IN_PACKAGE


def test_the_page_on_containers_speaks_of_what_there_is() -> None:
    page = (ROOT / "docs" / "deploying.md").read_text().split("## Containers\n")[1].split("\n## ")[0]
    makefile = (ROOT / "Makefile").read_text()
    profiles = {name for service in COMPOSE["services"].values() for name in service.get("profiles", [])}
    files = set(re.findall(r"`(deploy/[\w./-]+)`", page))

    assert re.findall(r"^    make (\S+)$", page, re.MULTILINE) == ["image", "image-test", "compose-test"]
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in ("image", "image-test", "lock"))
    assert files
    assert [name for name in files if not (ROOT / name).exists()] == []
    assert set(re.findall(r"--profile (\w+)", page)) == profiles
    assert f"ARG PYTHON_IMAGE=docker.io/library/{re.findall(r'`(python:[^`]+)`', page)[0]}\n" in DOCKERFILE
    assert re.findall(r"`(/opt/countersign/share[^`]*)`", page)[0] in DOCKERFILE


def test_the_page_on_compose_counts_the_requests_and_names_services_that_there_are() -> None:
    page = (ROOT / "docs" / "deploying.md").read_text().split("### Docker Compose\n")[1]
    runs = re.findall(r"^    docker compose run --rm (--\S+) (\S+)$", page, re.MULTILINE)

    assert runs == [("--no-deps", "demo"), ("--build", "demo")]
    assert {name for _, name in runs} <= COMPOSE["services"].keys()
    assert re.findall(r"(\d+) of the (\d+) requests", page) == [(str(len(WALK)), str(len(SCENARIO)))]
    assert "(docs/deploying.md#docker-compose)" in (ROOT / "README.md").read_text()
