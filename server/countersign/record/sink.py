"""Where lines go. A sink takes what it is given, and keeps it until it could be written."""

from collections.abc import Sequence
from typing import Protocol


class Sink(Protocol):
    """Belongs to the thread that writes, but for `open` and `close`, which come before it and after it."""

    def open(self) -> bytes:
        """Make ready. Give what stands at the end: the last lines of a log that goes on, or nothing.

        Raise OSError, naming the place, where that is not possible.
        """

    def put(self, lines: Sequence[bytes]) -> None:
        """Take lines, without their ends. None that was taken is lost while the process lives."""

    def flush(self, *, last: bool) -> None:
        """Write what was taken, if its time has come; with ``last`` everything. Raise OSError, and it is still there.

        Called again and again, also where nothing was put.
        """

    def close(self) -> int:
        """Give up; how many of the lines taken are lost by that."""
