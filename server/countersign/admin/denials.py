"""The denials of the last minutes, in bounded memory.

The thread of a check only appends to a deque. Whoever asks, or once a second a worker on its way to the supervisor,
makes the rest of it.
"""

import threading
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from countersign.core.decision import Deny
from countersign.edge.observed import Answered, Observe, all_of
from countersign.policy.workload import Workload

KEPT: Final = 100
_MAX_PAYLOAD: Final = 64 * 1024  # octets; a larger request is not kept, and its denial not explained
_UNREAD: Final = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """One denial as it was given at ``at`` (seconds since the epoch). ``payload`` is empty for one too large."""

    id: str
    at: float
    payload: bytes
    denied: Deny
    step: str
    workload: Workload | None
    peer: str


class Noted:
    """The latest denials of this process that nobody has taken yet."""

    def __init__(self) -> None:
        self._answers: deque[Answered] = deque(maxlen=KEPT)

    def observe(self, answered: Answered) -> None:
        """Keep it if it denies. From any thread."""
        if isinstance(answered.judged.decision, Deny):
            if len(answered.payload) > _MAX_PAYLOAD:
                answered = answered._replace(payload=_UNREAD)
            self._answers.append(answered)

    def take(self) -> tuple[Denial, ...]:
        """Those there are, the oldest first, to be kept by whoever takes them."""
        taken: list[Denial] = []
        with suppress(IndexError):
            while len(taken) < KEPT:
                answered = self._answers.popleft()
                decision = answered.judged.decision
                if isinstance(decision, Deny):
                    taken.append(_denial(answered, decision))
        return tuple(taken)


def noting(observe: Observe, noted: Noted | None) -> Observe:
    """Have denials noted beside what ``observe`` does, if anybody may ask for them."""
    return observe if noted is None else all_of(observe, noted.observe)


class Recent:
    """The latest denials, of this process or of all workers. From any thread."""

    def __init__(self) -> None:
        self._denials: deque[Denial] = deque(maxlen=KEPT)
        self._lock = threading.Lock()  # no check waits for it

    def add(self, denials: Iterable[Denial]) -> None:
        """Keep these too, and forget the oldest."""
        with self._lock:
            self._denials.extend(denials)

    def all(self) -> tuple[Denial, ...]:
        """The latest first."""
        with self._lock:
            return tuple(sorted(self._denials, key=lambda denial: denial.at, reverse=True))


def _denial(answered: Answered, denied: Deny) -> Denial:
    judged = answered.judged
    return Denial(
        id=answered.id,
        at=answered.at,
        payload=answered.payload,
        denied=denied,
        step=judged.step.name.lower(),
        workload=judged.workload,
        peer="" if judged.peer is None else str(judged.peer),
    )
