"""Signals that end the program, held back for a moment: between a process's start and the note to end it, say.

A signal's handler raises in the midst of whatever runs. If that is `Popen`, the child is there and nobody knows it.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Final

ENDINGS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Let no ending interrupt the block; one that came meanwhile is delivered after it."""
    if threading.current_thread() is not threading.main_thread():  # handlers run in the main thread only
        yield
        return
    came: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        came.append(number)

    # Ignored signals stay ignored; a handler that is not Python's (None) cannot be put back.
    before = {number: signal.getsignal(number) for number in ENDINGS}
    held = {number: handler for number, handler in before.items() if handler not in {None, signal.SIG_IGN}}
    for number in held:
        signal.signal(number, note)
    try:
        yield
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])
