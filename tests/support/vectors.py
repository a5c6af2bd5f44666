"""The shared test vectors: files below COUNTERSIGN_DATA, which is relative to the root of the repository."""

import json
import os
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

ROOT: Final = Path(__file__).resolve().parents[2]


def locate(path: str) -> Path:
    """A file or directory, or a skipped test."""
    folder = os.environ.get("COUNTERSIGN_DATA")
    if not folder:
        pytest.skip("COUNTERSIGN_DATA does not name the folder of the test vectors")
    return ROOT / folder / path


def text(path: str) -> str:
    """The text of a file, or a skipped test."""
    return locate(path).read_text(encoding="utf-8")


def json_file(path: str) -> Any:
    """A JSON file."""
    return json.loads(text(path))


def json_lines(path: str) -> list[Any]:
    """A file with one JSON value a line."""
    return [json.loads(line) for line in text(path).splitlines() if line]


def yaml_file(path: str) -> Any:
    """A YAML file."""
    return yaml.safe_load(text(path))
