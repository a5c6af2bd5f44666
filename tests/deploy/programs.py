"""Where the control planes' own programs are, and why a test is skipped without one."""

import os
import subprocess
from pathlib import Path
from typing import Final

import pytest

MANIFESTS: Final = Path(__file__).parents[2] / "deploy" / "kubernetes"
_BUILT: Final = Path(os.environ.get("COUNTERSIGN_CONTROL_PLANES") or Path(__file__).parents[2] / ".control-planes")


def program(name: str) -> Path:
    """Where it is, built or not."""
    return _BUILT / name


def needs(name: str) -> pytest.MarkDecorator:
    """Skip a test without the program."""
    reason = f"{name} is not built: `make control-planes` builds it, with Go"
    return pytest.mark.skipif(not program(name).exists(), reason=reason)


def run(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Its exit code and what it says."""
    return subprocess.run([program(name), *arguments], capture_output=True, text=True, timeout=60, check=False)
