"""One check: bytes in, bytes out, whatever happens.

Envoy takes a gRPC error for "the authorizer is broken" and, under ``failure_mode_allow``, lets the request through.
So everything that a caller can cause gets an explicit denial, and so does every fault of our own.
"""

import asyncio
import logging
import time
import traceback
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Final

from countersign.authorize import authorize
from countersign.core.decision import Allow, Deny, Reason
from countersign.core.jwt_rule import FetchedKeys
from countersign.edge.metadata import Metadata
from countersign.edge.observed import Answered, Numbers, Observe, Stages, UnrecordedError
from countersign.edge.remembered import Answer, Memory, Question
from countersign.edge.server import Held
from countersign.edge.ticket import Asked, Ticket
from countersign.judgement import Judgement, Step, deny
from countersign.snapshot import Snapshot
from countersign.wire.codec import RequestError, decode, encode, numbered

_log: Final = logging.getLogger(__name__)

BUDGET: Final = 0.150  # seconds: Envoy's own default for the whole call is 200 ms
MAX_HELD: Final = 1024  # checks that wait for keys at a time
EXPLANATIONS: Final = 100  # denials a second that say in `detail` what kept them from an allow; it costs three allows
# Seconds after a refresh was not permitted: made-up keys ask the event loop again 20 times a second, and not each time.
_REST: Final = 0.05
_MARGIN: Final = 0.020  # seconds of the caller's deadline left for the way back


def _always(denial: Deny) -> Answer:
    judged = Judgement(step=Step.REQUEST, decision=denial)
    return Answer(since=0.0, until=0.0, allows=False, octets=encode(denial), judged=judged)


_INTERNAL_ERROR: Final = _always(deny(Reason.INTERNAL_ERROR))
_DEADLINE_PASSED: Final = _always(deny(Reason.DEADLINE_PASSED, "the decision came after the deadline of the check"))
_NO_TIME: Final = _always(deny(Reason.DEADLINE_PASSED, "the deadline of the check came before its turn"))
UNRECORDED: Final = _always(deny(Reason.UNRECORDED, "the decision log has no room, and must have every decision"))
OVERLOADED: Final = _always(
    replace(deny(Reason.OVERLOADED, "more checks at a time than can be answered"), headers=(("retry-after", "1"),))
)

Refresh = Callable[[FetchedKeys], "asyncio.Future[None] | None"]
Report = Callable[[Exception], None]


class _Explanations:
    """How many denials may still be explained in this second. Of two threads, both may take the last one."""

    __slots__ = ("_left", "_second")

    def __init__(self) -> None:
        self._second = 0
        self._left = EXPLANATIONS

    def left(self, now: float) -> bool:
        """Whether there is one left at ``now`` (in seconds, of a clock that never goes back)."""
        second = int(now)
        if second != self._second:
            self._second, self._left = second, EXPLANATIONS
        return self._left > 0

    def spend(self) -> None:
        """One was given."""
        self._left -= 1


class Checker:
    """Answers checks from the current snapshot. Holds a call while its key is fetched, never a thread.

    ``report`` is told of every fault of ours that became a denial, ``observe`` of every answer. If there is somebody
    to observe, denials have IDs, and with ``number_allows`` also what is allowed. Checks may come from any thread.
    """

    def __init__(
        self,
        current: Callable[[], Snapshot],
        refresh: Refresh,
        report: Report,
        observe: Observe | None = None,
        *,
        number_allows: bool = False,
    ) -> None:
        self._current = current
        self._refresh = refresh
        self._report = report
        self._observe = observe
        self._number_allows = number_allows
        self._numbers = Numbers()
        self._held: weakref.WeakSet[Ticket] = weakref.WeakSet()
        self._memory = Memory(current())
        self._explanations = _Explanations()
        self._refused: dict[FetchedKeys, tuple[Snapshot, float]] = {}  # refreshes: by which snapshot, and until when

    def answer(self, payload: bytes, time_remaining: float | None, metadata: Metadata = ()) -> bytes | Held:
        """The serialized CheckResponse to a serialized CheckRequest, or what to await for it on the event loop.

        ``time_remaining`` is in seconds, None if endless. Nothing is decided by ``metadata``: it is for who observes.
        """
        begun = time.monotonic()
        budget = BUDGET if time_remaining is None else min(BUDGET, time_remaining - _MARGIN)
        deadline = begun + budget
        asked = payload, metadata, begun, deadline
        try:
            if deadline <= begun:
                return self._told(_NO_TIME, asked)
            memory = self._memory_of(self._current())
            question = memory.question(payload)
            if question is not None:
                known = memory.find(question.digest, time.time())
                if known is not None:
                    late = known.allows and time.monotonic() > deadline
                    return self._told(_DEADLINE_PASSED if late else known, asked, remembered=not late)
            return self._decided(asked, memory, question)
        except Exception as error:  # noqa: BLE001 (any fault of ours is a denial)
            self._report(error)
            return self._told(_INTERNAL_ERROR, asked)

    def shed(self, payload: bytes, metadata: Metadata = ()) -> bytes:
        """The answer to a check that is one too many, before anything is done for it."""
        return self._told_unread(OVERLOADED, payload, metadata)

    def refuse(self, payload: bytes, denial: Deny, metadata: Metadata = ()) -> bytes:
        """The answer to a check of somebody who may not ask: nothing of it is looked at."""
        return self._told_unread(_always(denial), payload, metadata)

    @property
    def held(self) -> int:
        """How many checks wait for keys."""
        return len(self._held)

    def _memory_of(self, snapshot: Snapshot) -> Memory:
        memory = self._memory
        if memory.snapshot is not snapshot:
            memory = self._memory = Memory(snapshot)
        return memory

    def _decided(self, asked: Asked, memory: Memory, question: Question | None) -> bytes | Held:
        payload, _, begun, deadline = asked
        now, may_wait, explain = time.time(), len(self._held) < MAX_HELD, self._explanations.left(begun)
        facts = None if question is None else memory.facts_of(question)
        read = time.monotonic()
        if facts is None:
            question = None
            judged = _judge(payload, memory.snapshot, now, may_wait=may_wait, explain=explain)
        else:
            judged = authorize(facts, memory.snapshot, now, may_wait=may_wait, explain=explain)
        decided = time.monotonic()
        stages = Stages(read - begun, decided - read)
        if judged.awaits and not self._in_vain(judged.awaits, memory.snapshot, decided):
            return partial(self._resume, self._ticket(asked, memory.snapshot, judged, stages))
        answer = _answer(judged, now, deadline)
        if isinstance(judged.decision, Deny) and judged.step is Step.POLICIES:
            self._explanations.spend()
            if not explain:
                question = None
        if question is not None and answer is not _DEADLINE_PASSED:
            memory.keep(question.digest, answer)
        return self._told(answer, asked, stages)

    def _told_unread(self, answer: Answer, payload: bytes, metadata: Metadata) -> bytes:
        now = time.monotonic()
        return self._told(answer, (payload, metadata, now, now))

    def _told(self, answer: Answer, asked: Asked, stages: Stages | None = None, *, remembered: bool = False) -> bytes:
        """The octets of an answer, after whoever observes has been told."""
        observe = self._observe
        if observe is None:
            return answer.octets
        payload, metadata, begun, _ = asked
        try:
            took = time.monotonic() - begun
            stages = Stages(took) if stages is None else stages._replace(encode=took - sum(stages))
            number = "" if answer.allows and not self._number_allows else self._numbers()
            observe(Answered(number, time.time() - took, payload, answer.judged, remembered, stages, metadata))
            return numbered(answer.octets, number, allows=answer.allows) if number else answer.octets
        except UnrecordedError:
            return UNRECORDED.octets
        except Exception as error:  # noqa: BLE001 (as in `answer`: what nobody could write down is not let through)
            self._report(error)
            return _INTERNAL_ERROR.octets

    def _ticket(self, asked: Asked, snapshot: Snapshot, judged: Judgement, stages: Stages) -> Ticket:
        ticket = Ticket(asked=asked, snapshot=snapshot, judged=judged, stages=stages)
        self._held.add(ticket)  # weakly: what is never awaited leaves by itself
        return ticket

    async def _resume(self, ticket: Ticket) -> bytes:
        """Wait, and decide with whatever keys have come. Where none have and none may, what was decided stands."""
        answer, stages = _INTERNAL_ERROR, ticket.stages
        payload, _, begun, deadline = ticket.asked
        try:
            judged = ticket.judged
            waited = await self._wait_for(judged.awaits, deadline)
            if not waited:
                refused = ticket.snapshot, time.monotonic() + _REST
                self._refused.update(dict.fromkeys(judged.awaits, refused))
            snapshot, now, came = self._current(), time.time(), time.monotonic()
            stages = stages._replace(wait=came - begun - sum(stages))
            if waited or snapshot is not ticket.snapshot:
                judged = _judge(payload, snapshot, now, may_wait=False, explain=True)
                stages = stages._replace(decide=stages.decide + time.monotonic() - came)
            answer = _answer(judged, now, deadline)
        except Exception as error:  # noqa: BLE001 (as above)
            self._report(error)
        finally:
            self._held.discard(ticket)
        return self._told(answer, ticket.asked, stages)

    def _in_vain(self, sources: Iterable[FetchedKeys], snapshot: Snapshot, now: float) -> bool:
        """Whether no refresh of any of them was permitted a moment ago, and no key has come since."""
        for source in sources:
            refused = self._refused.get(source)
            if refused is None or refused[0] is not snapshot or now > refused[1]:
                return False
        return True

    async def _wait_for(self, sources: Iterable[FetchedKeys], deadline: float) -> bool:
        """Wait until every permitted refresh has ended, or the budget has; False if none is permitted."""
        pending = [future for future in map(self._refresh, sources) if future is not None]
        timeout = deadline - time.monotonic()
        if pending and timeout > 0:
            await asyncio.wait(pending, timeout=timeout)
        return bool(pending)


def _judge(payload: bytes, snapshot: Snapshot, now: float, *, may_wait: bool, explain: bool) -> Judgement:
    try:
        facts = decode(payload)
    except RequestError as error:
        return Judgement(step=Step.REQUEST, decision=deny(error.reason, str(error)))
    return authorize(facts, snapshot, now, may_wait=may_wait, explain=explain)


def _answer(judged: Judgement, now: float, deadline: float) -> Answer:
    """The answer to what was judged at ``now``: none that allows is given after the deadline."""
    allows = isinstance(judged.decision, Allow)
    if allows and time.monotonic() > deadline:
        return _DEADLINE_PASSED
    return Answer(since=now, until=judged.until, allows=allows, octets=encode(judged.decision), judged=judged)


def report_on(loop: asyncio.AbstractEventLoop) -> Report:
    """Log faults on the loop, beside the request path."""

    def report(error: Exception) -> None:
        with suppress(RuntimeError):  # the loop has ended, and the log with it
            loop.call_soon_threadsafe(_report, type(error).__name__, error.__traceback__)

    return report


def _report(name: str, trace: object) -> None:
    """Log a fault beside the request path: where it happened, never its text, which may quote a token."""
    frames = "".join(traceback.format_tb(trace)) if trace else ""  # type: ignore[arg-type]  # a traceback or None
    _log.error("a check failed with %s and was denied\n%s", name, frames)
