"""One worker: answers checks by the policies and keys that the supervisor sends, and ends when that one does."""

import asyncio
import contextlib
import logging
import signal
import socket
import sys
from typing import Final

from countersign.admin.denials import Noted, noting
from countersign.admin.view import workloads_of
from countersign.edge.check import Checker, report_on
from countersign.edge.collector import settle, undisturbed
from countersign.edge.keys.fetcher import KeySets
from countersign.edge.metrics.state import counted
from countersign.edge.metrics.tally import Tally
from countersign.edge.tls.handshakes import Handshakes
from countersign.edge.transport import TransportError, make_server
from countersign.in_force import InForce
from countersign.policy.workload import Workload
from countersign.record.recorder import logged, observing, recording
from countersign.tracing.traced import tracing, tracing_too
from countersign.workers.messages import (
    BEAT,
    Beat,
    Certificates,
    Failed,
    Keys,
    Landed,
    Listening,
    Loaded,
    Missed,
    Seen,
    Standing,
    Start,
    Told,
    packed,
    policies_of,
    received,
)
from countersign.workers.misses import Misses

_log: Final = logging.getLogger(__name__)

_COUNTING: Final = 1.0  # seconds between two reports of what was counted
_HEARD: Final = 2.0  # seconds for the supervisor to hear our last word
_PIECE: Final = 65536  # bytes
GRACE: Final = 10.0  # seconds for running checks to end


async def work(pipe: socket.socket) -> int:
    """Serve as the supervisor at the other end says, until SIGTERM or until it has gone. Give the exit code."""
    settle()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    for number in (signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, lambda: None)  # the supervisor's, to pass on in its own way
    reader, writer = await asyncio.open_connection(sock=pipe)
    start = await received(reader)
    if not isinstance(start, Start):
        return 0  # the supervisor has gone meanwhile
    logging.basicConfig(level=start.logs.level, stream=sys.stderr, format=start.logs.format)
    try:
        await _Worker(start, reader, writer).run(stop)
    except (TransportError, OSError) as error:
        writer.write(packed(Failed(why=str(error), usage=isinstance(error, TransportError))))
        return 1
    finally:
        await _be_heard(reader, writer)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return 0


async def _be_heard(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Wait until the supervisor has read our last word and hangs up.

    To close with something of its own unread would reset the connection, and what it has not read yet would be lost.
    """
    with contextlib.suppress(OSError, TimeoutError):
        writer.write_eof()
        async with asyncio.timeout(_HEARD):
            while await reader.read(_PIECE):
                pass


class _Worker:
    """Hears, loads and serves at the same time; whichever of it ends, ends the worker."""

    def __init__(self, start: Start, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._misses = Misses(lambda source: self._say(Missed(source=source)))
        self._in_force = InForce(start.settings)
        self._recorder = recording(start.settings.record)
        self._tracer = tracing(wanted=start.settings.tracing)
        self._tally = Tally()
        self._noted = None if start.settings.admin is None else Noted()
        self._workloads: tuple[Workload, ...] = ()  # as the supervisor knows them
        self._checker = Checker(
            self._in_force.current,
            self._misses.refresh,
            report_on(asyncio.get_running_loop()),
            observing(self._recorder, tracing_too(noting(self._tally.count, self._noted), self._tracer)),
            number_allows=self._recorder is not None,
        )
        tls = start.settings.tls
        self._handshakes = None if tls is None else Handshakes(tls.callers)
        self._server = make_server(
            self._checker,
            start.settings.listen,
            start.settings.transport,
            tls=self._handshakes,
            metadata=start.settings.tracing,
        )
        self._keys: KeySets = {}
        self._loaded: Loaded | None = None  # the latest that are not in force yet
        self._policies_came = asyncio.Event()
        self._caught_up = asyncio.Event()
        self._caught_up.set()
        self._serving = False
        self._standing_came = asyncio.Event()
        self._started = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until told to stop or left alone. Raise OSError where that is not possible."""
        tasks = [
            asyncio.create_task(self._hear(), name="supervisor"),
            asyncio.create_task(self._load(), name="policies"),
            asyncio.create_task(self._serve(), name="checks"),
            asyncio.create_task(self._announce(), name="health"),
            asyncio.create_task(self._count(), name="metrics"),
            asyncio.create_task(self._beat(), name="signs of life"),
        ]
        stopped = asyncio.create_task(stop.wait(), name="stop")
        try:
            done, _ = await asyncio.wait([*tasks, stopped], return_when=asyncio.FIRST_COMPLETED)
        finally:
            await self._server.drain(GRACE)  # before the tasks end: running checks may wait for a key
            if self._recorder is not None:
                await asyncio.to_thread(self._recorder.stop)
            if self._tracer is not None:
                await asyncio.to_thread(self._tracer.stop)
            for task in (*tasks, stopped):
                task.cancel()
            await asyncio.gather(*tasks, stopped, return_exceptions=True)
            self._tell_counts()
        for task in done:
            task.result()

    async def _hear(self) -> None:
        """Take what the supervisor says, until it has gone."""
        while (message := await received(self._reader)) is not None:
            match message:
                case Loaded():
                    self._loaded = message
                    self._caught_up.clear()
                    self._policies_came.set()
                case Keys(sets=sets):
                    self._keys = sets
                    self._take_keys()
                case Certificates(served=served) if self._handshakes is not None:
                    self._handshakes.put(served)
                case Standing(serving=serving):
                    self._serving = serving
                    self._standing_came.set()
                case Landed(source=source, refused=refused):
                    self._misses.landed(source, refused=refused)
                case _:
                    raise TypeError(f"no message to a worker: {type(message).__name__}")
        _log.warning("the supervisor has gone: stopping")

    def _take_keys(self) -> None:
        """While new policies are being prepared, those in force still need keys that the new ones do not."""
        before = {} if self._caught_up.is_set() else self._in_force.fetched
        now = {source: keys.sharing(self._in_force.fetched.get(source)) for source, keys in self._keys.items()}
        self._in_force.take_keys({**before, **now})

    async def _load(self) -> None:
        """Put policies in force, beside whatever else is heard meanwhile."""
        while True:
            await self._policies_came.wait()
            self._policies_came.clear()
            message, self._loaded = self._loaded, None
            if message is not None:
                with undisturbed():
                    await self._in_force.put(await asyncio.to_thread(policies_of, message))
            if self._loaded is None:
                self._caught_up.set()
                self._take_keys()

    async def _serve(self) -> None:
        """Listen once everything is known. Raise OSError where that is not possible, or what has ended the server."""
        await self._standing_came.wait()
        await self._caught_up.wait()
        await self._server.start()
        await self._server.set_serving(serving=self._serving)
        self._started.set()
        self._say(Listening())
        await self._server.ended()

    async def _announce(self) -> None:
        """Tell health checks what the supervisor says."""
        await self._started.wait()
        while True:
            await self._standing_came.wait()
            self._standing_came.clear()
            await self._caught_up.wait()
            await self._server.set_serving(serving=self._serving)

    async def _count(self) -> None:
        while True:
            await asyncio.sleep(_COUNTING)
            self._tell_counts()

    def _tell_counts(self) -> None:
        cache, log = self._in_force.current().tokens, logged(self._recorder)
        self._say(Told(counted=counted(self._tally, self._checker, cache, log)))
        if self._noted is not None:
            denials, workloads = self._noted.take(), workloads_of(self._in_force.current())
            if denials or workloads != self._workloads:
                self._workloads = workloads
                self._say(Seen(denials=denials, workloads=workloads))

    async def _beat(self) -> None:
        """Show the supervisor that this process does not hang."""
        while True:
            self._say(Beat())
            await asyncio.sleep(BEAT)

    def _say(self, message: Beat | Missed | Listening | Seen | Told) -> None:
        if not self._writer.is_closing():
            self._writer.write(packed(message))
