"""The composition root: builds the parts of `serve` and joins them."""

import asyncio
import logging
import signal
from typing import Final

from countersign.admin.denials import Denial, Noted, Recent, noting
from countersign.admin.server import admin
from countersign.admin.view import View, workloads_of
from countersign.certificates.served import Served
from countersign.edge.check import Checker, report_on
from countersign.edge.metrics.exposition import Exposition
from countersign.edge.metrics.state import Counted, State, counted
from countersign.edge.metrics.tally import Tally
from countersign.edge.probes import Probes
from countersign.edge.readiness import Check, Checks, not_ready
from countersign.edge.server import Server
from countersign.edge.tls.handshakes import Handshakes
from countersign.edge.transport import make_server
from countersign.in_force import InForce
from countersign.record.recorder import logged, observing, recording
from countersign.settings import Settings
from countersign.sources import Sources
from countersign.tracing.traced import tracing, tracing_too

_log: Final = logging.getLogger(__name__)

_GRACE: Final = 10.0  # seconds for running checks to end after SIGTERM


class App:
    """One serving process."""

    def __init__(self, settings: Settings, configuration: str = "") -> None:
        self._settings = settings
        self._noted = None if settings.admin is None else Noted()
        self._recent = Recent()
        self._configuration = configuration
        self._news = asyncio.Event()  # something that readiness depends on has changed
        self._in_force = InForce(settings)
        self._handshakes = None if settings.tls is None else Handshakes(settings.tls.callers)
        self._sources = Sources(settings, self._in_force.put, self._in_force.take_keys, self._give, self._news.set)
        self._stop = asyncio.Event()
        self._checks: Checks = ()  # as the health checks of the server were told

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT. Raise `PolicyError`, `TlsError`, `TransportError` or OSError."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._sources.reload)
        await self._sources.load(self._stop)
        if self._stop.is_set():
            return
        recorder = recording(self._settings.record)
        tracer = tracing(wanted=self._settings.tracing)
        tally = Tally()
        checker = Checker(
            self._in_force.current,
            self._sources.refresh,
            report_on(loop),
            observing(recorder, tracing_too(noting(tally.count, self._noted), tracer)),
            number_allows=recorder is not None,
        )
        metrics = Exposition(
            lambda: self._state(counted(tally, checker, self._in_force.current().tokens, logged(recorder)))
        )
        server = make_server(
            checker,
            self._settings.listen,
            self._settings.transport,
            tls=self._handshakes,
            metadata=self._settings.tracing,
        )
        try:
            await server.start()
            _log.info("listening on %s", ", ".join(map(str, self._settings.listen)))
            await self._say(server)
            # After the server and its health: whoever is told that we are ready may call at once, and ask again.
            with admin(self._settings, self._view()), Probes(self._settings.probes, lambda: self._checks, metrics.text):
                await self._serve(server)
        finally:
            await server.drain(_GRACE)
            if recorder is not None:
                await asyncio.to_thread(recorder.stop)
            if tracer is not None:
                await asyncio.to_thread(tracer.stop)

    async def _serve(self, server: Server) -> None:
        tasks = [
            *self._sources.start(self._stop),
            asyncio.create_task(self._announce(server), name="health"),
            asyncio.create_task(server.ended(), name="checks"),
        ]
        stopped = asyncio.create_task(self._stop.wait(), name="stop")
        try:
            # A background task never ends by itself: if one does, stop rather than serve without it.
            done, _ = await asyncio.wait([*tasks, stopped], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._stop.set()
            self._checks = self._look()
            _log.info("stopping")
            await server.drain(_GRACE)  # before the tasks end: running checks may wait for a key
            for task in (*tasks, stopped):
                task.cancel()
            await asyncio.gather(*tasks, stopped, return_exceptions=True)
        for task in done:
            if task is not stopped:
                task.result()

    def _view(self) -> View:
        return View(
            snapshot=self._in_force.current,
            key_states=self._sources.key_states,
            denials=self._denials,
            workloads=lambda: workloads_of(self._in_force.current()),
            configuration=self._configuration,
        )

    def _denials(self) -> tuple[Denial, ...]:
        if self._noted is not None:
            self._recent.add(self._noted.take())
        return self._recent.all()

    def _give(self, served: Served) -> None:
        if self._handshakes is not None:
            self._handshakes.put(served)

    def _look(self) -> Checks:
        """What has to be right for checks to come here."""
        shutdown = Check("shutdown", "stopping" if self._stop.is_set() else "")
        return (shutdown, Check("listening"), *self._sources.checks())

    def _state(self, now: Counted) -> State:
        """What is told to whoever scrapes."""
        sources = self._sources
        serving = int(not not_ready(self._checks))
        return State(
            counted=now,
            loads=sources.loads,
            keys=sources.key_states(),
            fetches=sources.fetches,
            cluster=sources.cluster,
            serving=serving,
            tls=sources.tls,
        )

    async def _announce(self, server: Server) -> None:
        """Tell health checks whatever readiness becomes."""
        while True:
            await self._say(server)
            await self._news.wait()
            self._news.clear()

    async def _say(self, server: Server) -> None:
        self._checks = self._look()
        await server.set_serving(serving=not not_ready(self._checks))
