"""What was answered and is not written yet: bounded, in number and in octets, and free of locks.

Checks put in, on any thread; one thread takes out. The steps of both are single operations of CPython, and where two
threads of checks meet, both may take the last place or count as one: the count of octets is set right whenever the
queue is empty, and the number of answers is the deque's own.
"""

from collections import deque
from itertools import count
from typing import Final

from countersign.edge.observed import Answered

MAX_OCTETS: Final = 64 * 1024 * 1024


class Queue:
    """First in, first out. ``refused`` is how many found no place."""

    def __init__(self, places: int, octets: int = MAX_OCTETS) -> None:
        self._places = places
        self._octets = octets
        self._answers: deque[Answered] = deque()
        self._put_in = 0  # octets
        self._taken_out = 0
        self._refusals = count(1)
        self.refused = 0

    def __len__(self) -> int:
        return len(self._answers)

    def put(self, answered: Answered) -> bool:
        """Add one; False, and counted, if there is no place."""
        size = len(answered.payload)
        if len(self._answers) >= self._places or self._put_in - self._taken_out + size > self._octets:
            self.refused = next(self._refusals)
            return False
        self._put_in += size
        self._answers.append(answered)
        return True

    def take(self) -> Answered | None:
        """The first; None if there is none."""
        put_in = self._put_in
        if not self._answers:
            self._taken_out = put_in
            return None
        answered = self._answers.popleft()
        self._taken_out += len(answered.payload)
        return answered
