"""From what was answered to lines: records and events, masked, and chained where that is asked for."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from countersign.core.facts import RequestFacts
from countersign.edge.observed import Answered
from countersign.record.chain import Chain, Event, Sign, read_link
from countersign.record.entry import PATH, entry, timestamp
from countersign.record.mask import masked
from countersign.record.text import line_of


@dataclass(slots=True, kw_only=True)
class Lines:
    """Makes the lines of one process, in order. ``labels`` say which process that is.

    ``chain`` is None where none is asked for. A checkpoint is due after ``every`` lines or ``interval`` seconds.
    """

    labels: Mapping[str, str]
    mask: tuple[str, ...] = ()
    chain: Chain | None = None
    key: str = ""
    every: int = 0
    interval: float = 0.0
    _since: int = field(default=0, init=False)  # records since the last signature
    _signed_at: float = field(default=0.0, init=False)

    def record(self, answered: Answered, facts: RequestFacts | None) -> bytes:
        """The line of a decision."""
        return self._line(masked(entry(answered, facts, self.labels), self.mask))

    def incomplete(self, answered: Answered) -> bytes:
        """The line of a decision of which no more can be said than that it was made."""
        result = {"reason": str(answered.judged.decision.reason)}
        made = {"timestamp": timestamp(answered.at), "decision_id": answered.id, "labels": self.labels}
        return self._line({**made, "path": PATH, "result": result, "incomplete": True})

    def lost(self, count: int, now: float) -> bytes:
        """The line that says how many decisions have none."""
        return self._line(self._event(Event.LOST, now, {"lost": count}))

    def _line(self, record: dict[str, Any]) -> bytes:
        line = line_of(record) if self.chain is None else self.chain.seal(record)
        self._since += 1
        return line

    def start(self, now: float, torn: bytes) -> Iterable[bytes]:
        """The first line, where there is a chain. ``torn`` is half a line that was found at the end of the log."""
        more = {"torn": sha256(torn).hexdigest()} if torn else {}
        return self._signed(Event.START, now, more)

    def checkpoint(self, now: float) -> Iterable[bytes]:
        """A checkpoint, if one is due: only a signature makes one worth anything."""
        if not self.key or not self._since:
            return ()
        if self._since < self.every and now - self._signed_at < self.interval:
            return ()
        return self._signed(Event.CHECKPOINT, now, {})

    def stop(self, now: float) -> Iterable[bytes]:
        """The last line, where there is a chain."""
        return self._signed(Event.STOP, now, {})

    def _signed(self, event: Event, now: float, more: Mapping[str, Any]) -> Iterable[bytes]:
        if self.chain is None:
            return ()
        self._since, self._signed_at = 0, now
        key = {"key": self.key} if self.key else {}
        return (self.chain.seal(self._event(event, now, {**key, **more}), signed=True),)

    def _event(self, event: Event, now: float, more: Mapping[str, Any]) -> dict[str, Any]:
        return {"timestamp": timestamp(now), "event": str(event), "labels": self.labels, **more}


def continued(tail: bytes, sign: Sign | None) -> tuple[Chain, bytes]:
    """The chain that goes on where a log ends, or a new one; and half a line, if that is its end.

    ``tail`` are the last octets of the log.
    """
    *whole, torn = tail.split(b"\n")
    after = read_link(whole[-1]) if whole else None
    if after is None and len(whole) > 1 and not torn:  # killed again, before it said so
        after, torn = read_link(whole[-2]), whole[-1]
    return Chain(sign, after), torn
