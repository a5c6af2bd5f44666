"""A key set in a file is read within the same limits as one that comes over HTTP."""

import os
from pathlib import Path

import pytest
from countersign.core.jwt_rule import FileKeys
from countersign.edge.keys.fetch import FetchError
from countersign.edge.keys.files import read

from tests.edge.keys.issuing import JWKS, KIDS


def refused(path: Path) -> str:
    with pytest.raises(FetchError) as error:
        read(FileKeys(str(path)))
    return str(error.value)


def test_a_file_gives_its_keys(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    path.write_bytes(JWKS.ljust(1024 * 1024))

    assert [key.kid for key in read(FileKeys(str(path))).keys] == KIDS


def test_the_file_behind_a_symlink_is_read_each_time(tmp_path: Path) -> None:
    """Kubernetes swaps `..data` beneath the name."""
    path = tmp_path / "jwks.json"
    path.symlink_to("..data/jwks.json")
    for version, text in (("..1", b'{"keys":[]}'), ("..2", JWKS)):
        (tmp_path / version).mkdir()
        (tmp_path / version / "jwks.json").write_bytes(text)
        (tmp_path / "..new").symlink_to(version)
        (tmp_path / "..new").rename(tmp_path / "..data")
        assert bool(read(FileKeys(str(path))).keys) is (text == JWKS)


def test_what_is_no_key_set_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    assert refused(path) == "No such file or directory"
    for octets, error in {
        b"": "no JSON with one reading: not JSON",
        b"\xff": "not UTF-8 at octet 0",
        b" " * (1024 * 1024 + 1): "larger than 1048576 octets",
        b"[]": "not an object",
    }.items():
        path.write_bytes(octets)
        assert refused(path) == error
    path.unlink()
    os.mkfifo(path)
    assert refused(path) == "no regular file"
    assert refused(tmp_path) in ("no regular file", "Is a directory")
