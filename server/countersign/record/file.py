"""Lines to a file, or to standard output: whole ones, in order, at the end, and again after a failure.

A file that was renamed (logrotate's ``create``) is left where the next line begins, without a signal: before each
write, the name is looked up. It is open for appending, so ``copytruncate`` works too, but takes lines away that a
chain then misses.
"""

import fcntl
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from countersign.record.settings import Sync

_MODE: Final = 0o640
_TAIL: Final = 1 << 16  # octets at the end of a file that are looked at for its last line
_SECOND: Final = 1.0


class _Unwritten:
    """Octets on their way to a file descriptor."""

    def __init__(self) -> None:
        self._octets = b""
        self._lines = 0

    def __bool__(self) -> bool:
        return bool(self._octets)

    def add(self, lines: Sequence[bytes]) -> None:
        self._octets += b"".join(b"%s\n" % line for line in lines)

    def write(self, fd: int) -> None:
        """Write until there is nothing left. Raise OSError, and the rest is still there, half a line or not."""
        while self._octets:
            self._octets = self._octets[os.write(fd, self._octets) :]

    def count(self) -> int:
        return self._octets.count(b"\n")


class FileSink:
    """The end of a file, which is made if it is not there, for its owner and group."""

    def __init__(self, path: Path, sync: Sync = Sync.SECOND) -> None:
        self._path = path
        self._sync = sync
        self._unwritten = _Unwritten()
        self._fd = -1
        self._unsynced_since: float | None = None

    def open(self) -> bytes:
        """Open it; give its last octets. What is half a line stays, and gets an end."""
        self._fd = self._opened()
        with self._path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL))
            tail = file.read()
        if tail and not tail.endswith(b"\n"):
            os.write(self._fd, b"\n")
        return tail

    def _opened(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _MODE)

    def put(self, lines: Sequence[bytes]) -> None:
        """Take lines."""
        if not self._unwritten:
            self._follow()
        self._unwritten.add(lines)

    def _follow(self) -> None:
        """Leave a file that has no longer its name. Where there can be no new one, the next write says so."""
        if self._fd < 0:
            return
        try:
            ours, named = os.fstat(self._fd), self._path.stat()
        except FileNotFoundError:
            self._leave()
        except OSError:
            return
        else:
            if (ours.st_dev, ours.st_ino) != (named.st_dev, named.st_ino):
                self._leave()

    def _leave(self) -> None:
        fd, self._fd = self._fd, -1
        try:
            if self._sync is not Sync.NEVER:
                os.fdatasync(fd)
        finally:
            os.close(fd)

    def flush(self, *, last: bool) -> None:
        """Write everything, and force it to the disk where it is time."""
        if self._unwritten:
            if self._fd < 0:
                self._fd = self._opened()
            self._unwritten.write(self._fd)
            if self._unsynced_since is None:
                self._unsynced_since = time.monotonic()
        if self._unsynced_since is None or self._sync is Sync.NEVER:
            return
        if last or self._sync is Sync.ALWAYS or time.monotonic() - self._unsynced_since >= _SECOND:
            if self._fd >= 0:
                os.fdatasync(self._fd)
            self._unsynced_since = None

    def close(self) -> int:
        """Close it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        return self._unwritten.count()


def stdout_lock() -> int:
    """What processes lock that share standard output; on a read-only filesystem too. Open until this process ends."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("decision log")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class StdoutSink:
    """Standard output. ``lock`` is a file that every process locks that writes to the same one."""

    def __init__(self, lock: int | None = None, fd: int = 1) -> None:
        self._lock = lock
        self._fd = fd
        self._unwritten = _Unwritten()

    def open(self) -> bytes:
        """Nothing is to be done, and nothing known of what was written before."""
        return b""

    def put(self, lines: Sequence[bytes]) -> None:
        """Take lines."""
        self._unwritten.add(lines)

    def flush(self, *, last: bool) -> None:  # noqa: ARG002 (there is no other time)
        """Write everything. Whoever does not read standard output holds this thread up, and no other."""
        if not self._unwritten:
            return
        if self._lock is None:
            self._unwritten.write(self._fd)
            return
        fcntl.lockf(self._lock, fcntl.LOCK_EX)
        try:
            self._unwritten.write(self._fd)
        finally:
            fcntl.lockf(self._lock, fcntl.LOCK_UN)

    def close(self) -> int:
        """Nothing is to be done."""
        return self._unwritten.count()
