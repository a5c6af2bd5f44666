"""docker-compose.yml by Docker Compose itself, in a copy of what it mounts: a test may edit it."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
PLUGIN: Final = os.environ.get("COUNTERSIGN_COMPOSE", "")
_WITHIN: Final = 240.0  # seconds, for one command


class Project:
    """The directory of docker-compose.yml, and the engine that runs it; none is needed to read the file."""

    def __init__(self, directory: Path, host: str = "") -> None:
        self.directory = directory
        shutil.copy(ROOT / "docker-compose.yml", directory)
        for mounted in ("envoy", "deploy"):
            shutil.copytree(ROOT / mounted, directory / mounted)
        kept = {name: os.environ[name] for name in ("HOME", "PATH") if name in os.environ}
        self._environment = {**kept, **({"DOCKER_HOST": host} if host else {})}

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """``docker compose WORDS``; whoever asks looks at its exit code."""
        return subprocess.run(
            [PLUGIN, "--ansi", "never", *words],
            cwd=self.directory,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=_WITHIN,
            check=False,
        )

    def said(self, *words: str) -> str:
        """What a command prints. Raise `AssertionError` with its errors if it fails."""
        result = self.run(*words)
        assert result.returncode == 0, (words, result.stdout[-2000:], result.stderr[-4000:])
        return result.stdout

    def configuration(self, *flags: str) -> dict[str, Any]:
        """The file as Compose reads it: merged, interpolated, every short form long."""
        read: dict[str, Any] = json.loads(self.said(*flags, "config", "--format", "json"))
        return read

    def states(self) -> dict[str, tuple[str, str, int]]:
        """State, health and exit code of each service that has a container."""
        lines = self.said("ps", "--all", "--format", "json").splitlines()
        return {each["Service"]: (each["State"], each["Health"], each["ExitCode"]) for each in map(json.loads, lines)}
