"""The program that asks Istio's own code (`filters/`), built with Go from the module proxy, once.

Nothing of Istio's is in this repository: ``filters/go.mod`` says which of its commits it is, ``go.sum`` what is in it.
"""

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_SOURCE: Final = Path(__file__).with_name("filters")
_BUILT: Final = Path(__file__).resolve().parents[3] / ".istio"
_CRDS: Final = "manifests/charts/base/files/crd-all.gen.yaml"
_MODULE: Final = "istio.io/istio"


class NoGoError(RuntimeError):
    """There is no Go here, so that Istio's code cannot be built."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """The program, the CRDs of the same commit, and which commit that is."""

    file: Path
    crds: Path
    version: str


def build() -> Program:
    """Build it, or find it built. Takes minutes when nothing of it was built before. Raise `NoGoError`."""
    go = shutil.which("go")
    if go is None:
        raise NoGoError("Go is not installed; it builds Istio's own translator (go.dev/doc/install)")
    _BUILT.mkdir(exist_ok=True)
    file = _BUILT / "filters"
    subprocess.run([go, "build", "-o", str(file), "."], cwd=_SOURCE, env=os.environ | {"GOFLAGS": "-p=1"}, check=True)
    listed = subprocess.run(
        [go, "list", "-m", "-json", _MODULE], cwd=_SOURCE, check=True, capture_output=True, text=True
    )
    module = json.loads(listed.stdout)
    return Program(file=file, crds=Path(module["Dir"]) / _CRDS, version=module["Version"])
