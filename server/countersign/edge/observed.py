"""What is told of each answered check to whoever watches: metrics, the log of decisions, the list of denials.

Telling is the last that is done for a check, on its thread, and counts as part of it: whoever is told only counts or
queues, and leaves all else to a thread of its own.
"""

import itertools
import secrets
from collections.abc import Callable
from typing import Final, NamedTuple

from countersign.edge.metadata import Metadata
from countersign.judgement import Judgement


class Stages(NamedTuple):
    """Seconds that a check took: to read it, to decide, to wait for keys, to write the answer.

    An answer from memory, and one to a check that came too late, has only been read.
    """

    read: float
    decide: float = 0.0
    wait: float = 0.0
    encode: float = 0.0


class Answered(NamedTuple):
    """One check that was answered.

    ``id`` is the decision's, in the metadata of the answer too; empty where it was given none. ``at`` is when the
    check was taken up (seconds since the epoch), ``payload`` the serialized CheckRequest. ``judged`` is shared by all
    answers from memory to one question. ``metadata`` is the call's, where somebody traces.
    """

    id: str
    at: float
    payload: bytes
    judged: Judgement
    remembered: bool
    stages: Stages
    metadata: Metadata = ()


class UnrecordedError(Exception):
    """Raised by whoever observes an answer that may not be given without being written down, and cannot be now."""


Observe = Callable[[Answered], None]


def all_of(*observers: Observe) -> Observe:
    """Tells each of them, in this order."""
    if len(observers) == 1:
        return observers[0]

    def tell(answered: Answered) -> None:
        for observe in observers:
            observe(answered)

    return tell


_DIGITS: Final = 11  # of hexadecimal: a million checks a second for half a year


class Numbers:
    """Names for decisions: one prefix of a process, random, and a number. All are of one length, in ASCII."""

    def __init__(self) -> None:
        self._prefix = secrets.token_hex(8)
        self._count = itertools.count()

    def __call__(self) -> str:
        """The next. From any thread."""
        return f"{self._prefix}-{next(self._count):0{_DIGITS}x}"
