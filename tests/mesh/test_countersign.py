"""What would fail much later with a strange message fails early with a clear one."""

from pathlib import Path

import pytest
from countersign.mesh.countersign import Countersign
from countersign.mesh.process import MeshError


def test_a_socket_path_that_is_too_long_for_the_kernel_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MeshError, match="too long for a unix socket; set TMPDIR"):
        Countersign(tmp_path / ("a" * 107), tmp_path, tmp_path)


def test_stopping_what_was_never_started_is_harmless() -> None:
    Countersign(Path("/run/authz.sock"), Path("/run"), Path("/run")).stop()
