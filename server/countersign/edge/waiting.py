"""The checks that have arrived and wait for their turn: a bounded queue that can be left early."""

from collections import OrderedDict
from typing import Final, NamedTuple

from countersign.edge.metadata import Metadata

MAX_CALLS: Final = 512
FEW: Final = 128  # that are soon answered, however long something else has held them up
MAX_WAIT: Final = 0.075  # seconds: half of a check's budget is the most that waiting may cost
MAX_BYTES: Final = 32 * 1024 * 1024


class Waiting(NamedTuple):
    """One check. Times are those of ``time.monotonic``: the deadline, None if endless, and when it came."""

    call: int
    payload: bytes
    deadline: float | None
    since: float
    metadata: Metadata = ()


class Queue:
    """First come, first served; whoever would be one too many is told at once. Every operation is O(1).

    One too many is who finds no room, and who finds more than a few of whom the first has waited too long already.
    """

    __slots__ = ("_bytes", "_calls")

    def __init__(self) -> None:
        self._calls: OrderedDict[int, Waiting] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._calls)

    def offer(self, waiting: Waiting) -> bool:
        """Queue up; False if there is no room, in calls, in bytes or in time."""
        size = self._bytes + len(waiting.payload)
        if len(self._calls) >= MAX_CALLS or size > MAX_BYTES:
            return False
        if len(self._calls) >= FEW and waiting.since - next(iter(self._calls.values())).since > MAX_WAIT:
            return False
        self._calls[waiting.call] = waiting
        self._bytes = size
        return True

    def take(self) -> Waiting:
        """Whose turn it is. Raise KeyError if nobody waits."""
        _, waiting = self._calls.popitem(last=False)
        self._bytes -= len(waiting.payload)
        return waiting

    def leave(self, call: int) -> None:
        """Whoever called does not wait any more."""
        waiting = self._calls.pop(call, None)
        if waiting is not None:
            self._bytes -= len(waiting.payload)
