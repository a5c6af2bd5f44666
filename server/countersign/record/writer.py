"""The thread that writes: takes answers from the queue, makes lines of them, and gives those to the sink.

It looks every 50 ms, so that nothing on the request path has to wake it. A sink that fails is tried again with what it
has, and meanwhile nothing is taken from the queue: that is how a full disk becomes a full queue.
"""

import logging
import threading
import time
from contextlib import suppress
from typing import Final

from countersign.core.facts import RequestFacts
from countersign.edge.observed import Answered
from countersign.record.lines import Lines
from countersign.record.queue import Queue
from countersign.record.sink import Sink
from countersign.wire.codec import RequestError, decode

_log: Final = logging.getLogger(__name__)

_LOOK: Final = 0.05  # seconds between two looks at the queue
_BATCH: Final = 256  # lines written at once
FIRST_BACKOFF: Final = 0.1  # seconds after a failure, doubled with each one
MAX_BACKOFF: Final = 5.0
_LOST_EVERY: Final = 1.0  # seconds between two lines that say how many were lost


class Writer:
    """Writes from `start` to `stop`. ``written`` counts records that their sink has taken over."""

    def __init__(self, queue: Queue, lines: Lines, sink: Sink) -> None:
        self._queue = queue
        self._lines = lines
        self._sink = sink
        self._stop = threading.Event()
        self._deadline = 0.0
        self._thread = threading.Thread(target=self._run, name="decision log", daemon=True)
        self._told_lost = 0
        self._lost_at = 0.0
        self._failing = False
        self.written = 0
        self.lost_at_end = 0

    def start(self, torn: bytes) -> None:
        """Begin; ``torn`` is half a line at the end of the log."""
        self._sink.put(list(self._lines.start(time.time(), torn)))
        self._thread.start()

    def stop(self, grace: float) -> int:
        """Write what is left, for at most ``grace`` seconds. Give how many answers could not be written."""
        self._deadline = time.monotonic() + grace
        self._stop.set()
        self._thread.join(grace + _LOOK)
        if self._thread.is_alive():  # whoever should read standard output does not
            return len(self._queue)
        return self.lost_at_end

    def _run(self) -> None:
        while not self._stop.wait(_LOOK):
            self._turn(last=False)
        self._turn(last=True)
        if not self._queue:
            self._tell_lost(time.time(), last=True)
            self._sink.put(list(self._lines.stop(time.time())))
        self._persist(last=True)
        self.lost_at_end = len(self._queue) + self._sink.close()

    def _turn(self, *, last: bool) -> None:
        """Empty the queue, batch by batch."""
        while self._persist(last=False):
            now = time.time()
            self._tell_lost(now, last=False)
            lines = self._next_lines(now)
            if not lines:
                return
            self._sink.put(lines)
            if last and time.monotonic() > self._deadline:
                return

    def _next_lines(self, now: float) -> list[bytes]:
        lines = [*self._lines.checkpoint(now)]
        while len(lines) < _BATCH and (answered := self._queue.take()) is not None:
            lines.append(self._line(answered))
            lines += self._lines.checkpoint(now)
            self.written += 1
        return lines

    def _line(self, answered: Answered) -> bytes:
        # Read again: an answer from memory was never decoded, and what others were judged by has only the headers that
        # rules name; whole facts, kept in the queue, would take two to four times the octets of the payload.
        facts: RequestFacts | None = None
        try:
            with suppress(RequestError):
                facts = decode(answered.payload)
            return self._lines.record(answered, facts)
        except Exception as error:  # noqa: BLE001 (a fault of ours must not end the log, nor hide a decision)
            _log.error("a record is incomplete: %s", type(error).__name__)  # and not its text, which may quote a token
            return self._lines.incomplete(answered)

    def _tell_lost(self, now: float, *, last: bool) -> None:
        lost = self._queue.refused - self._told_lost
        if lost > 0 and (last or now - self._lost_at >= _LOST_EVERY):
            self._told_lost += lost
            self._lost_at = now
            self._sink.put([self._lines.lost(lost, now)])
            _log.warning("the queue of the decision log was full: %d decisions are not recorded", lost)

    def _persist(self, *, last: bool) -> bool:
        """Have the sink write what it has, again and again until it can; False if the end came before."""
        backoff = FIRST_BACKOFF
        while True:
            try:
                self._sink.flush(last=last)
            except OSError as error:
                if not self._failing:
                    _log.error("the decision log cannot be written, and is tried again: %s", error)
                self._failing = True
                if not self._stop.wait(backoff):
                    backoff = min(2 * backoff, MAX_BACKOFF)
                elif time.monotonic() > self._deadline:
                    return False
                else:
                    time.sleep(_LOOK)
            else:
                if self._failing:
                    _log.info("the decision log can be written again")
                self._failing = False
                return True
