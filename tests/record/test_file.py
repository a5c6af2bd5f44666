"""Lines to a file: all of them, in order, whole, whatever becomes of the file."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from countersign.record.file import FileSink, StdoutSink
from countersign.record.settings import Sync


def put(sink: FileSink | StdoutSink, *lines: bytes) -> None:
    sink.put(lines)
    sink.flush(last=False)


@pytest.mark.parametrize("sync", list(Sync))
def test_lines_are_appended_and_their_owner_alone_may_change_them(tmp_path: Path, sync: Sync) -> None:
    path = tmp_path / "d.jsonl"
    path.write_bytes(b"before\n")
    path.unlink()
    sink = FileSink(path, sync)
    assert sink.open() == b""
    put(sink, b"1", b"2")
    put(sink, b"3")
    sink.flush(last=True)

    assert (path.read_bytes(), path.stat().st_mode & 0o027) == (b"1\n2\n3\n", 0)
    assert sink.close() == 0


def test_a_file_that_was_renamed_is_followed_by_a_new_one(tmp_path: Path) -> None:
    path, old = tmp_path / "d.jsonl", tmp_path / "d.jsonl.1"
    sink = FileSink(path)
    sink.open()
    put(sink, b"1")
    path.rename(old)
    put(sink, b"2")
    path.unlink()
    put(sink, b"3")
    sink.close()

    assert (old.read_bytes(), path.read_bytes()) == (b"1\n", b"3\n")


def test_a_file_that_was_emptied_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    sink = FileSink(path)
    sink.open()
    put(sink, b"1")
    os.truncate(path, 0)
    put(sink, b"2")
    sink.close()

    assert path.read_bytes() == b"2\n"


def test_what_cannot_be_written_waits_and_is_written_once(tmp_path: Path) -> None:
    folder, gone = tmp_path / "logs", tmp_path / "gone"
    folder.mkdir()
    sink = FileSink(folder / "d.jsonl")
    sink.open()
    folder.rename(gone)
    sink.put([b"1"])
    with pytest.raises(FileNotFoundError):
        sink.flush(last=False)
    with pytest.raises(FileNotFoundError):
        sink.flush(last=False)
    folder.mkdir()
    sink.flush(last=False)

    assert (folder / "d.jsonl").read_bytes() == b"1\n"
    assert sink.close() == 0


def test_what_was_never_written_is_counted(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    sink = FileSink(tmp_path / "a" / "d.jsonl")
    sink.open()
    (tmp_path / "a").rename(tmp_path / "b")
    sink.put([b"1", b"2"])
    with pytest.raises(FileNotFoundError):
        sink.flush(last=True)
    assert sink.close() == 2


def test_what_a_full_disk_takes_only_half_of_is_completed_later() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    sink = StdoutSink(fd=writing)
    sink.put([b"x" * 100_000])  # more than a pipe takes: as with a disk, a part is written
    with pytest.raises(BlockingIOError):
        sink.flush(last=False)
    assert sink.close() == 1
    got = os.read(reading, 1 << 20)
    sink.flush(last=False)
    got += os.read(reading, 1 << 20)
    for fd in (reading, writing):
        os.close(fd)
    assert got == b"x" * 100_000 + b"\n"


def test_a_half_written_line_gets_an_end_and_is_handed_over(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_bytes(b"1\nhal")
    sink = FileSink(path)
    assert sink.open() == b"1\nhal"
    put(sink, b"2")
    sink.close()
    assert path.read_bytes() == b"1\nhal\n2\n"


def test_a_place_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"nowhere/d\.jsonl"):
        FileSink(tmp_path / "nowhere" / "d.jsonl").open()


def test_lines_of_processes_that_share_an_output_are_not_mixed(tmp_path: Path) -> None:
    script = (
        "import sys; from countersign.record.file import StdoutSink\n"
        "sink = StdoutSink(lock=int(sys.argv[1]))\n"
        "for _ in range(10): sink.put([sys.argv[2].encode() * 200_000] * 3); sink.flush(last=False)"
    )
    reading, writing = os.pipe()
    with (tmp_path / "lock").open("wb") as lock:
        children = [
            subprocess.Popen(
                [sys.executable, "-c", script, str(lock.fileno()), letter], stdout=writing, pass_fds=[lock.fileno()]
            )
            for letter in "abc"
        ]
        os.close(writing)
        with os.fdopen(reading, "rb") as file:
            lines = file.read().splitlines()
        assert [child.wait() for child in children] == [0, 0, 0]

    assert len(lines) == 90
    assert {(len(line), len(set(line))) for line in lines} == {(200_000, 1)}  # more than a pipe takes at once
