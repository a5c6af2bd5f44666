"""An engine with the images of docker-compose.yml, for `make compose-test`; elsewhere what needs them is skipped."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.compose.engine import Engine
from tests.compose.project import PLUGIN, Project

_HOW: Final = "`make compose-test` builds Docker Compose (with Go) and runs it on Podman, as root"
_IMAGES: Final = ("countersign", "envoy", "prometheus")


@pytest.fixture(scope="session")
def images() -> Path:
    """Where the archives are."""
    if not PLUGIN:
        pytest.skip(f"no Docker Compose here: {_HOW}")
    return Path(os.environ["COUNTERSIGN_COMPOSE_IMAGES"])


@pytest.fixture(scope="session")
def project(images: Path) -> Iterator[Project]:
    """docker-compose.yml on an engine that has the images, and nothing else yet."""
    with tempfile.TemporaryDirectory(prefix="countersign-compose-") as name:
        directory = Path(name)
        (directory / "engine").mkdir()
        (directory / "project").mkdir(mode=0o755)
        directory.chmod(0o755)  # whoever runs in a container reads what is mounted
        with Engine(directory / "engine") as engine:
            for image in _IMAGES:
                engine.podman("load", "--quiet", "--input", str(images / f"{image}.tar"))
            yield Project(directory / "project", engine.host)
