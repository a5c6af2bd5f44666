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
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from countersign.authorize import Judgement, Snapshot, Step, authorize, deny
from countersign.core.decision import Allow, Decision, Deny, Reason
from countersign.core.jwt_rule import FetchedKeys
from countersign.edge.remembered import Memory, Question
from countersign.edge.server import Held
from countersign.wire.codec import RequestError, decode, encode

_log: Final = logging.getLogger(__name__)

BUDGET: Final = 0.150  # seconds: Envoy's own default for the whole call is 200 ms
MAX_HELD: Final = 1024  # checks that wait for keys at a time
EXPLANATIONS: Final = 100  # denials a second that say in `detail` what kept them from an allow; it costs three allows
_MARGIN: Final = 0.020  # seconds of the caller's deadline left for the way back

_INTERNAL_ERROR: Final = encode(deny(Reason.INTERNAL_ERROR))
_DEADLINE_PASSED: Final = encode(deny(Reason.DEADLINE_PASSED, "the decision came after the deadline of the check"))
_NO_TIME: Final = encode(deny(Reason.DEADLINE_PASSED, "the deadline of the check came before its turn"))

# For whoever is one too many, before anything is done for it.
OVERLOADED: Final = encode(
    replace(deny(Reason.OVERLOADED, "more checks at a time than can be answered"), headers=(("retry-after", "1"),))
)

Refresh = Callable[[FetchedKeys], "asyncio.Future[None] | None"]
Report = Callable[[Exception], None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class _Ticket:
    """A check that waits for keys; it counts as long as anybody has it."""

    payload: bytes
    snapshot: Snapshot
    judged: Judgement
    deadline: float


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

    ``report`` is told of every fault of ours that became a denial. Checks may come from any thread.
    """

    def __init__(self, current: Callable[[], Snapshot], refresh: Refresh, report: Report) -> None:
        self._current = current
        self._refresh = refresh
        self._report = report
        self._held: weakref.WeakSet[_Ticket] = weakref.WeakSet()
        self._memory = Memory(current())
        self._explanations = _Explanations()

    def answer(self, payload: bytes, time_remaining: float | None) -> bytes | Held:
        """The serialized CheckResponse to a serialized CheckRequest, or what to await for it on the event loop.

        ``time_remaining`` is in seconds, None if endless.
        """
        try:
            now = time.monotonic()
            deadline = now + (BUDGET if time_remaining is None else min(BUDGET, time_remaining - _MARGIN))
            if deadline <= now:
                return _NO_TIME
            memory = self._memory_of(self._current())
            question = memory.question(payload)
            if question is not None:
                known = memory.find(question.digest, time.time())
                if known is not None:
                    return _DEADLINE_PASSED if known.allows and time.monotonic() > deadline else known.octets
            return self._decided(payload, memory, question, deadline)
        except Exception as error:  # noqa: BLE001 (any fault of ours is a denial)
            self._report(error)
            return _INTERNAL_ERROR

    def _memory_of(self, snapshot: Snapshot) -> Memory:
        memory = self._memory
        if memory.snapshot is not snapshot:
            memory = self._memory = Memory(snapshot)
        return memory

    def _decided(self, payload: bytes, memory: Memory, question: Question | None, deadline: float) -> bytes | Held:
        now, may_wait, explain = time.time(), len(self._held) < MAX_HELD, self._explanations.left(time.monotonic())
        facts = None if question is None else memory.facts_of(question)
        if facts is None:
            question = None
            judged = _judge(payload, memory.snapshot, now, may_wait=may_wait, explain=explain)
        else:
            judged = authorize(facts, memory.snapshot, now, may_wait=may_wait, explain=explain)
        if judged.awaits:
            return partial(self._resume, self._ticket(payload, memory.snapshot, judged, deadline))
        answer = _encoded(judged.decision, deadline)
        if isinstance(judged.decision, Deny) and judged.step is Step.POLICIES:
            self._explanations.spend()
            if not explain:
                return answer
        if question is not None and answer is not _DEADLINE_PASSED:
            memory.keep(question.digest, judged, answer, now)
        return answer

    def _ticket(self, payload: bytes, snapshot: Snapshot, judged: Judgement, deadline: float) -> _Ticket:
        ticket = _Ticket(payload=payload, snapshot=snapshot, judged=judged, deadline=deadline)
        self._held.add(ticket)  # weakly: what is never awaited leaves by itself
        return ticket

    async def _resume(self, ticket: _Ticket) -> bytes:
        """Wait, and decide with whatever keys have come. Where none have and none may, what was decided stands."""
        try:
            judged = ticket.judged
            waited = await self._wait_for(judged.awaits, ticket.deadline)
            snapshot = self._current()
            if waited or snapshot is not ticket.snapshot:
                judged = _judge(ticket.payload, snapshot, time.time(), may_wait=False, explain=True)
            return _encoded(judged.decision, ticket.deadline)
        except Exception as error:  # noqa: BLE001 (as above)
            self._report(error)
            return _INTERNAL_ERROR
        finally:
            self._held.discard(ticket)

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


def _encoded(decision: Decision, deadline: float) -> bytes:
    if isinstance(decision, Allow) and time.monotonic() > deadline:
        return _DEADLINE_PASSED
    return encode(decision)


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
