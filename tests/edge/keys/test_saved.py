"""A copy on a disk is believed only if it is whole, ours, of this source, and not too old."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from countersign.core.jwt_rule import RemoteKeys
from countersign.edge.keys.freshness import Validators
from countersign.edge.keys.saved import Copy, CopyError, forget, path_of, recall, save

from tests.edge.keys.issuing import JWKS, KIDS

SOURCE = RemoteKeys("https://issuer.test/jwks")
NOW, DAY = 1_800_000_000.0, 86400.0
COPY = Copy(text=JWKS.decode(), confirmed_at=NOW, validators=Validators(uri=SOURCE.uri, etag='"v1"'))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    save(tmp_path, SOURCE, COPY)
    return tmp_path


def refused(directory: Path, now: float = NOW + 60, source: RemoteKeys = SOURCE) -> str:
    with pytest.raises(CopyError) as error:
        recall(directory, source, now, DAY)
    return str(error.value)


def forge(directory: Path, change: Callable[[dict[str, object]], object]) -> None:
    """Write a copy with a good digest and other contents."""
    path = path_of(directory, SOURCE)
    content = json.loads(path.read_bytes().partition(b"\n")[2])
    change(content)
    body = json.dumps(content).encode()
    path.write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)


def test_what_is_saved_is_recalled_with_its_age(directory: Path) -> None:
    copy = recall(directory, SOURCE, NOW + 60, DAY)

    assert copy is not None
    assert [key.kid for key in copy.keys.keys] == KIDS
    assert (copy.age, copy.validators, copy.text) == (60, COPY.validators, COPY.text)
    assert [path.stat().st_mode & 0o777 for path in directory.iterdir()] == [0o600]


def test_a_source_without_a_copy_has_none(directory: Path) -> None:
    for other in (
        RemoteKeys("https://issuer.test/jwks2"),
        RemoteKeys(SOURCE.uri, discover=True),
        RemoteKeys(SOURCE.uri, access="private"),
    ):
        assert recall(directory, other, NOW, DAY) is None
    assert recall(directory, RemoteKeys(SOURCE.uri, timeout=1.0), NOW, DAY) is not None
    forget(directory, SOURCE)
    forget(directory, SOURCE)
    assert recall(directory, SOURCE, NOW, DAY) is None
    assert recall(directory / "nowhere", SOURCE, NOW, DAY) is None


def test_a_copy_under_the_name_of_another_source_is_refused(directory: Path) -> None:
    other = RemoteKeys("https://other.test/jwks")
    path_of(directory, SOURCE).rename(path_of(directory, other))

    assert refused(directory, source=other) == "of another source, or not what this version writes"


def test_a_copy_counts_until_it_is_too_old_and_not_before_its_time(directory: Path) -> None:
    assert recall(directory, SOURCE, NOW + DAY - 1, DAY) is not None
    assert refused(directory, NOW + DAY) == "too old"
    early = recall(directory, SOURCE, NOW - 60, DAY)
    assert early is not None
    assert early.age == 0
    assert refused(directory, NOW - 61) == "from the future"


def test_a_copy_with_any_octet_changed_is_refused(directory: Path) -> None:
    path = path_of(directory, SOURCE)
    whole = path.read_bytes()
    for position in (0, 63, 64, 65, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        assert refused(directory) == "damaged: its digest is another one"
    for damaged in (b"", whole[:-1], whole + b"\n", whole[65:]):
        path.write_bytes(damaged)
        assert refused(directory) == "damaged: its digest is another one"
    path.write_bytes(whole)
    assert recall(directory, SOURCE, NOW, DAY) is not None


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.update(format=2),
        lambda content: content.update(confirmedAt="1800000000"),
        lambda content: content.update(confirmedAt=True),
        lambda content: content.update(text=None),
        lambda content: content.update(validators={}),
        lambda content: content.update(validators=["u", "e"]),
        lambda content: content.update(source=["https://issuer.test/jwks", False]),
        lambda content: content.pop("source"),
        lambda content: content.clear(),
    ],
)
def test_a_copy_of_another_form_is_refused(directory: Path, change: Callable[[dict[str, object]], object]) -> None:
    forge(directory, change)

    assert refused(directory) == "of another source, or not what this version writes"


def test_the_keys_in_a_copy_are_read_as_strictly_as_any(directory: Path) -> None:
    forge(directory, lambda content: content.update(text='{"keys":[],"keys":[]}'))

    assert "a name twice" in refused(directory)


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o602, 0o700])
def test_a_copy_that_others_may_touch_is_refused(directory: Path, mode: int) -> None:
    path_of(directory, SOURCE).chmod(mode)

    assert refused(directory) == "not a file of this user alone (mode 0600)"


def test_a_copy_of_another_user_is_refused(directory: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    os.chown(path_of(directory, SOURCE), 12345, -1)

    assert refused(directory) == "not a file of this user alone (mode 0600)"


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o1777])
def test_a_directory_that_others_may_write_is_neither_read_nor_written(directory: Path, mode: int) -> None:
    directory.chmod(mode)

    assert "others may write the directory" in refused(directory)
    with pytest.raises(CopyError, match="others may write the directory"):
        save(directory, SOURCE, COPY)


def test_what_is_no_regular_file_is_refused(directory: Path, tmp_path: Path) -> None:
    path = path_of(directory, SOURCE)
    real = tmp_path / "real"
    path.rename(real)
    path.symlink_to(real)
    assert "symbolic links" in refused(directory)
    path.unlink()
    path.mkdir()
    assert refused(directory) == "Is a directory"
    path.rmdir()
    os.mkfifo(path, 0o600)
    assert refused(directory) == "no regular file"


def test_a_copy_replaces_the_last_one_whole(directory: Path) -> None:
    with path_of(directory, SOURCE).open("rb") as reader:  # it goes on reading the old one
        save(directory, SOURCE, Copy(text='{"keys":[]}', confirmed_at=NOW))
        assert JWKS[:20] in reader.read().replace(b'\\"', b'"')
    copy = recall(directory, SOURCE, NOW, DAY)

    assert copy is not None
    assert (copy.keys.keys, copy.validators) == ((), None)
    assert len(list(directory.iterdir())) == 1


def test_where_nothing_can_be_written_that_is_said_and_nothing_stays(tmp_path: Path) -> None:
    with pytest.raises(CopyError, match="No such file or directory"):
        save(tmp_path / "nowhere", SOURCE, COPY)
    (tmp_path / "file").touch()
    with pytest.raises(CopyError, match="no directory"):
        save(tmp_path / "file", SOURCE, COPY)
    path_of(tmp_path, SOURCE).mkdir()
    with pytest.raises(CopyError, match="Is a directory"):
        save(tmp_path, SOURCE, COPY)
    with pytest.raises(CopyError, match="Is a directory"):
        forget(tmp_path, SOURCE)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([path_of(tmp_path, SOURCE).name, "file"])
