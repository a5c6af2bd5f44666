"""Keeps one worker running: whatever ends its process, another takes its place on the same address."""

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Callable
from typing import Final

from countersign.admin.denials import Recent
from countersign.core.jwt_rule import FetchedKeys
from countersign.edge.metrics.state import Counted
from countersign.edge.transport import TransportError
from countersign.policy.workload import Workload
from countersign.workers.messages import BEAT, Beat, Failed, Listening, Missed, Seen, Start, Told
from countersign.workers.outbox import Outbox
from countersign.workers.process import Process, begin

_log: Final = logging.getLogger(__name__)

FIRST_BACKOFF: Final = 0.1  # seconds until the next process, doubled with each one that does not last
MAX_BACKOFF: Final = 10.0
LASTING: Final = 30.0  # seconds after which an end is the first again

HUNG: Final = 5.0  # seconds without a sign of life
_STARTING: Final = 30.0  # the same, before the first one

Refresh = Callable[[FetchedKeys], "asyncio.Future[None] | None"]


class Keeper:
    """One worker. ``state`` is what a process of it must know, by rank (see `countersign.workers.outbox`).

    What it denies goes to ``recent``.
    """

    def __init__(self, name: str, start: Start, refresh: Refresh, on_news: Callable[[], None], recent: Recent) -> None:
        self._name = name
        self._start = start
        self._refresh = refresh
        self._on_news = on_news
        self._recent = recent
        self.workloads: tuple[Workload, ...] = ()  # that its process was asked for
        self._state: dict[int, bytes] = {}
        self._outbox = Outbox()
        self._process: Process | None = None
        self._failed: Failed | None = None
        self._alive_until = 0.0  # on the clock of time.monotonic, unless a sign of life comes first
        self._hung = False
        self._has_listened = False
        self._stop = asyncio.Event()
        self.listens = False
        self._past = self._now = Counted()

    @property
    def counted(self) -> Counted:
        """What all its processes have counted."""
        return self._past + self._now

    def tell(self, rank: int, message: bytes) -> None:
        """Tell the process that runs, and each that comes after it."""
        self._state[rank] = message
        self._outbox.put(rank, message)

    def stop(self) -> None:
        """Have it drain, and begin no other."""
        self._stop.set()
        if self._process is not None:
            self._process.signal(signal.SIGTERM)

    async def keep(self) -> None:
        """Keep a process running until `stop`, or until cancelled, which kills it.

        Raise OSError or `TransportError` if the first one cannot serve.
        """
        backoff = FIRST_BACKOFF
        while not self._stop.is_set():
            begun = time.monotonic()
            code = await self._run()
            if self._stop.is_set():
                return
            why = self._failed.why if self._failed is not None else f"exit code {code}"
            if self._hung:
                why = f"it has given no sign of life for {HUNG:g} s, and was killed"
            if not self._has_listened:
                raise _error(self._failed, f"{self._name} ended before it listened: {why}")
            backoff = FIRST_BACKOFF if time.monotonic() - begun > LASTING else backoff
            _log.error("%s has ended, another begins in %g s: %s", self._name, backoff, why)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), backoff)
            backoff = min(2 * backoff, MAX_BACKOFF)

    async def _run(self) -> int:
        self._failed, self._hung = None, False
        self._outbox = Outbox()  # what was not sent is in the state, and what was asked has been forgotten
        for rank, message in self._state.items():
            self._outbox.put(rank, message)
        record = self._start.settings.record
        process = await begin(() if record is None or record.stdout_lock is None else (record.stdout_lock,))
        self._process = process
        if self._stop.is_set():  # meanwhile
            process.signal(signal.SIGTERM)
        watching = asyncio.create_task(self._watch(process), name=f"signs of life of {self._name}")
        try:
            return await process.converse(self._start, self._outbox, self._hear)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            self._process = None
            self.listens = False
            self._past, self._now = self._past + self._now.past(), Counted()
            self._on_news()

    async def _watch(self, process: Process) -> None:
        """Kill the process once it gives no sign of life, which also ends one that is stopped."""
        self._alive_until = time.monotonic() + _STARTING
        while time.monotonic() < self._alive_until:
            begun = time.monotonic()
            await asyncio.sleep(BEAT)
            if time.monotonic() - begun > 2 * BEAT:  # we ourselves were held up, and what came is still unread
                self._alive_until = time.monotonic() + HUNG
        self._hung = True
        process.signal(signal.SIGKILL)

    def _hear(self, message: object) -> None:
        match message:
            case Beat():
                self._alive_until = time.monotonic() + HUNG
            case Listening():
                self.listens = self._has_listened = True
                pid = self._process.pid if self._process is not None else 0
                _log.info("%s serves, process %d", self._name, pid)
                self._on_news()
            case Missed(source=source):
                self._answer(source)
            case Told(counted=now):
                self._now = now
            case Seen(denials=denials, workloads=workloads):
                self.workloads = workloads
                self._recent.add(denials)
            case Failed():
                self._failed = message
            case _:
                raise TypeError(f"no message from a worker: {type(message).__name__}")

    def _answer(self, source: FetchedKeys) -> None:
        outbox = self._outbox  # of the process that has asked
        landing = self._refresh(source)
        if landing is None:
            outbox.landed(source, refused=True)
        else:
            landing.add_done_callback(lambda _: outbox.landed(source, refused=False))


def _error(failed: Failed | None, otherwise: str) -> Exception:
    if failed is None:
        return OSError(otherwise)
    return TransportError(failed.why) if failed.usage else OSError(failed.why)
