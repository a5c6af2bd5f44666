"""A directory in which batches wait for a collector, also over a restart: a file for each, oldest first.

A batch is there as a whole or not at all: it is written under another name, forced to the disk, and renamed.
"""

import contextlib
import errno
import fcntl
import os
import threading
from pathlib import Path
from typing import Final

_BATCH: Final = ".json.gz"
_PART: Final = ".part"
_REFUSED: Final = ".refused"
_DIGITS: Final = 16


class Spool:
    """At most ``limit`` octets, for one process. One thread adds, another takes away."""

    def __init__(self, directory: Path, limit: int) -> None:
        self._directory = directory
        self._limit = limit
        self._lock = threading.Lock()  # of the two threads; none of them answers checks
        self._sizes: dict[str, int] = {}  # of what is to be sent, oldest first
        self._size = 0
        self._next = 0
        self._process_lock = -1

    def open(self) -> None:
        """Find what waits. Raise OSError where the directory cannot be used, or is another process's."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._directory / "lock"
        self._process_lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._process_lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.close()
            raise OSError(error.errno, "another process spools here", str(self._directory)) from error
        for part in self._directory.glob(f"*{_PART}"):
            part.unlink()
        files = sorted(path for path in self._directory.iterdir() if path.name.endswith((_BATCH, _REFUSED)))
        sizes = {path.name: path.stat().st_size for path in files}
        self._sizes = {name: size for name, size in sizes.items() if name.endswith(_BATCH)}
        self._size = sum(sizes.values())
        numbers = [int(path.name[:_DIGITS]) for path in files if path.name[:_DIGITS].isdecimal()]
        self._next = max(numbers, default=-1) + 1

    def __len__(self) -> int:
        return len(self._sizes)

    def add(self, batch: bytes) -> None:
        """Keep a batch. Raise OSError if there is no room."""
        if self._size + len(batch) > self._limit:
            raise OSError(errno.EDQUOT, "the spool is full", str(self._directory))
        name = f"{self._next:0{_DIGITS}}{_BATCH}"
        part = self._directory / f"{name}{_PART}"
        with part.open("wb") as file:
            file.write(batch)
            file.flush()
            os.fsync(file.fileno())
        part.rename(self._directory / name)
        self._next += 1
        with self._lock:
            self._sizes[name] = len(batch)
            self._size += len(batch)

    def first(self) -> tuple[str, bytes] | None:
        """The oldest batch and its name; None if none waits. Raise OSError where it cannot be read."""
        while True:
            with self._lock:
                name = next(iter(self._sizes), None)
            if name is None:
                return None
            try:
                return name, (self._directory / name).read_bytes()
            except FileNotFoundError:  # somebody has made room
                self._forget(name, is_gone=True)

    def remove(self, name: str) -> None:
        """The oldest batch has arrived."""
        (self._directory / name).unlink(missing_ok=True)
        self._forget(name, is_gone=True)

    def set_aside(self, name: str) -> None:
        """The oldest batch will never be taken: it stays, under another name, and is not sent again."""
        (self._directory / name).rename(self._directory / f"{name.removesuffix(_BATCH)}{_REFUSED}")
        self._forget(name, is_gone=False)

    def _forget(self, name: str, *, is_gone: bool) -> None:
        with self._lock:
            size = self._sizes.pop(name)
            if is_gone:
                self._size -= size

    def close(self) -> None:
        """Leave it to others."""
        if self._process_lock >= 0:
            with contextlib.suppress(OSError):
                os.close(self._process_lock)
            self._process_lock = -1
