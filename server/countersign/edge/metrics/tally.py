"""Counts every answered check, on the thread that answered it and without a lock.

An answer from memory shares its judgement with all others like it, so that counting it is adding one to a number.
What the number stands for is worked out when somebody reads, or when there are many.
"""

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from countersign.core.decision import AllowReason, Reason
from countersign.edge.observed import Answered, Stages
from countersign.judgement import Judgement

BUCKETS: Final = 20  # of durations: bucket n has those below 2**n microseconds; 0.26 s is beyond any deadline
KINDS: Final = 4096  # of decisions that are told apart; policies come and go, and what counts them must not grow
OTHER: Final = "other"  # the policy and issuer of whatever came after so many
_PENDING: Final = 256  # judgements that are counted before they are worked out

STAGES: Final = ("total", *Stages._fields)


class Kind(NamedTuple):
    """What is told apart of decisions. ``would`` is what a dry run would have decided, ``issuer`` a verified one's."""

    reason: AllowReason | Reason
    policy: str = ""
    would: AllowReason | Reason | None = None
    issuer: str = ""


@dataclass(frozen=True, slots=True)
class Duration:
    """Seconds that one stage took: how many were in each bucket, the last being beyond all others, and their sum."""

    buckets: tuple[int, ...] = (0,) * (BUCKETS + 1)
    seconds: float = 0.0

    def __add__(self, other: "Duration") -> "Duration":
        return Duration(tuple(map(int.__add__, self.buckets, other.buckets)), self.seconds + other.seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """What was counted until now, by one thread, process, or several. ``remembered`` are answers from memory."""

    kinds: Mapping[Kind, int] = field(default_factory=dict)
    remembered: int = 0
    durations: Mapping[str, Duration] = field(default_factory=dict)

    def __add__(self, other: "Totals") -> "Totals":
        durations = {
            stage: self.durations.get(stage, Duration()) + other.durations.get(stage, Duration()) for stage in STAGES
        }
        return Totals(
            kinds=Counter(self.kinds) + Counter(other.kinds),
            remembered=self.remembered + other.remembered,
            durations=durations,
        )


class Tally:
    """Counts the checks of one process."""

    def __init__(self) -> None:
        self._threads: list[_Thread] = []
        self._mine = _Mine(self._threads)

    def count(self, answered: Answered) -> None:
        """One check was answered. From any thread."""
        self._mine.thread.count(answered)

    def totals(self) -> Totals:
        """What was counted until now. From any thread."""
        return sum((thread.totals() for thread in list(self._threads)), Totals())


_Key = int | tuple[int, int, int, int]


class _Pending:
    """How many answers there were to one judgement that has not been worked out yet."""

    __slots__ = ("judged", "times")

    def __init__(self, judged: Judgement) -> None:
        self.judged = judged
        self.times = 0


class _Thread:
    """The counts of one thread, which nobody else writes to: no two can lose each other's.

    What was worked out and what is pending are swapped as one, so that whoever reads counts nothing twice.
    """

    def __init__(self) -> None:
        self._kinds: tuple[Mapping[Kind, int], dict[_Key, _Pending]] = ({}, {})
        self._remembered = 0
        self._buckets = {stage: [0] * (BUCKETS + 1) for stage in STAGES}
        self._seconds = dict.fromkeys(STAGES, 0.0)

    def count(self, answered: Answered) -> None:
        judged = answered.judged
        pending = self._kinds[1]
        # Identities, because they cost nothing to hash; whoever is kept keeps its parts, so that no other has theirs.
        key = id(judged) if answered.remembered else _parts(judged)
        kept = pending.get(key)
        if kept is None:
            if len(pending) >= _PENDING:
                pending = {}
                self._kinds = (_worked_out(*self._kinds), pending)
            kept = pending[key] = _Pending(judged)
        kept.times += 1
        stages = answered.stages
        if answered.remembered:
            self._remembered += 1
            self._spent("total", stages[0])
            return
        self._spent("total", sum(stages))
        for stage, seconds in zip(Stages._fields, stages, strict=True):
            if seconds:
                self._spent(stage, seconds)

    def _spent(self, stage: str, seconds: float) -> None:
        bucket = int(seconds * 1e6).bit_length()
        self._buckets[stage][min(BUCKETS, bucket)] += 1
        self._seconds[stage] += seconds

    def totals(self) -> Totals:
        durations = {stage: Duration(tuple(self._buckets[stage]), self._seconds[stage]) for stage in STAGES}
        return Totals(kinds=_worked_out(*self._kinds), remembered=self._remembered, durations=durations)


class _Mine(threading.local):
    def __init__(self, threads: list[_Thread]) -> None:
        self.thread = _Thread()
        threads.append(self.thread)


def _worked_out(known: Mapping[Kind, int], pending: Mapping[_Key, _Pending]) -> Mapping[Kind, int]:
    """Both together. The thread that counts may add meanwhile."""
    kinds = Counter(known)
    for each in list(pending.values()):
        kind = kind_of(each.judged)
        if kind not in kinds and len(kinds) >= KINDS:
            kind = kind._replace(policy=OTHER, issuer=OTHER if kind.issuer else "")
        kinds[kind] += each.times
    return kinds


def _parts(judged: Judgement) -> _Key:
    """The identities of what is told apart."""
    decision, token = judged.decision, judged.token
    tried = decision.dry_run
    return (
        id(decision.reason),
        id(decision.policy),
        0 if tried is None else id(tried.reason),
        0 if token is None else id(token.issuer),
    )


def kind_of(judged: Judgement) -> Kind:
    """What a judgement is counted as. An issuer counts only where its token has verified: others are made up."""
    decision = judged.decision
    token = judged.token
    tried = decision.dry_run
    return Kind(
        reason=decision.reason,
        policy="" if decision.policy is None else decision.policy.id,
        would=None if tried is None else tried.reason,
        issuer="" if token is None else token.issuer,
    )
