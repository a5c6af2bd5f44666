"""One check: bytes in, bytes out, whatever happens.

Envoy takes a gRPC error for "the authorizer is broken" and, under ``failure_mode_allow``, lets the request through.
So everything that a caller can cause gets an explicit denial, and so does every fault of our own.
"""

import asyncio
import logging
import time
import traceback
from collections.abc import Callable, Iterable
from typing import Final

from countersign.authorize import Snapshot, authorize, deny
from countersign.core.decision import Allow, Decision, Reason
from countersign.core.jwt_rule import RemoteKeys
from countersign.tokens.authenticate import KeysNeeded
from countersign.wire.codec import RequestError, decode, encode

_log: Final = logging.getLogger(__name__)

BUDGET: Final = 0.150  # seconds: Envoy's own default for the whole call is 200 ms
_MARGIN: Final = 0.020  # seconds of the caller's deadline left for the way back

_INTERNAL_ERROR: Final = encode(deny(Reason.INTERNAL_ERROR))

Refresh = Callable[[RemoteKeys], "asyncio.Future[None] | None"]


class Checker:
    """Answers checks from the current snapshot. Holds a call while its key is fetched, never a thread."""

    def __init__(self, current: Callable[[], Snapshot], refresh: Refresh) -> None:
        self._current = current
        self._refresh = refresh

    async def answer(self, payload: bytes, time_remaining: float | None) -> bytes:
        """The serialized CheckResponse to a serialized CheckRequest; ``time_remaining`` in seconds, None if endless."""
        try:
            deadline = time.monotonic() + min(BUDGET, BUDGET if time_remaining is None else time_remaining - _MARGIN)
            decision = self._decide(payload, may_wait=True)
            if isinstance(decision, KeysNeeded):
                await self._wait_for(decision.sources, deadline)
                decision = self._decide(payload, may_wait=False)
            if isinstance(decision, KeysNeeded) or (isinstance(decision, Allow) and time.monotonic() > deadline):
                decision = deny(Reason.DEADLINE_PASSED, "the decision came after the deadline of the check")
            return encode(decision)
        except Exception as error:  # noqa: BLE001 (the one catch-all: any fault of ours is a denial)
            asyncio.get_running_loop().call_soon(_report, type(error).__name__, error.__traceback__)
            return _INTERNAL_ERROR

    def _decide(self, payload: bytes, *, may_wait: bool) -> Decision | KeysNeeded:
        try:
            facts = decode(payload)
        except RequestError as error:
            return deny(error.reason, str(error))
        return authorize(facts, self._current(), time.time(), may_wait=may_wait)

    async def _wait_for(self, sources: Iterable[RemoteKeys], deadline: float) -> None:
        """Wait until every permitted refresh has ended, or the budget has."""
        pending = [future for future in map(self._refresh, sources) if future is not None]
        timeout = deadline - time.monotonic()
        if pending and timeout > 0:
            await asyncio.wait(pending, timeout=timeout)


def _report(name: str, trace: object) -> None:
    """Log a fault beside the request path: where it happened, never its text, which may quote a token."""
    frames = "".join(traceback.format_tb(trace)) if trace else ""  # type: ignore[arg-type]  # a traceback or None
    _log.error("a check failed with %s and was denied\n%s", name, frames)
