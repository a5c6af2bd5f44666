"""The supervisor: reads policies and fetches keys once for all workers, keeps them running, and answers for them."""

import asyncio
import logging
import signal
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import chain
from typing import Final

from countersign.admin.denials import Recent
from countersign.admin.server import admin
from countersign.admin.view import View
from countersign.certificates.served import Served
from countersign.edge.keys.fetcher import KeySets
from countersign.edge.metrics.exposition import Exposition
from countersign.edge.metrics.state import Counted, State
from countersign.edge.probes import Probes
from countersign.edge.readiness import Check, Checks, not_ready
from countersign.in_force import InForce, Policies
from countersign.settings import Settings
from countersign.sources import Sources
from countersign.workers.keeper import Keeper
from countersign.workers.messages import Certificates, Keys, Logs, Standing, Start, loaded, packed
from countersign.workers.outbox import CERTIFICATES, KEYS, POLICIES, STANDING
from countersign.workers.worker import GRACE

_log: Final = logging.getLogger(__name__)

_MARGIN: Final = 5.0  # seconds beyond the workers' own grace, before they are killed


class Supervisor:
    """The parent of ``settings.workers`` processes. It answers no checks."""

    def __init__(self, settings: Settings, logs: Logs, configuration: str = "") -> None:
        settings = settings.sharing_stdout()
        self._settings = settings
        self._stop = asyncio.Event()
        self._news = asyncio.Event()
        self._all_have_served = False
        self._checks: Checks = ()
        self._in_force = None if settings.admin is None else InForce(settings)  # for who asks about policies
        self._recent = Recent()
        self._configuration = configuration
        self._sources = Sources(settings, self._put, self._take_keys, self._give, self._news.set)
        self._keepers = [
            Keeper(
                f"worker {number} ({', '.join(map(str, settings.addresses_of(number)))})",
                Start(
                    settings=settings.of_worker(number),
                    logs=replace(logs, format=logs.format.replace("%(message)s", f"worker {number}: %(message)s")),
                ),
                self._sources.refresh,
                self._news.set,
                self._recent,
            )
            for number in range(settings.workers)
        ]

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT. Raise `PolicyError`, `TransportError` or OSError where it cannot start."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._sources.reload)
        self._take_keys({})
        await self._sources.load(self._stop)
        if self._stop.is_set():
            return
        self._checks = self._look()
        with self._admin(), Probes(self._settings.probes, lambda: self._checks, Exposition(self._state).text):
            await self._serve()

    def _admin(self) -> AbstractContextManager[object]:
        in_force = self._in_force
        if in_force is None:
            return nullcontext()
        view = View(
            snapshot=in_force.current,
            key_states=self._sources.key_states,
            denials=self._recent.all,
            workloads=lambda: dict.fromkeys(chain.from_iterable(keeper.workloads for keeper in self._keepers)),
            configuration=self._configuration,
        )
        return admin(self._settings, view)

    async def _serve(self) -> None:
        tasks = [*self._sources.start(self._stop), asyncio.create_task(self._announce(), name="health")]
        workers = [asyncio.create_task(keeper.keep(), name="worker") for keeper in self._keepers]
        stopped = asyncio.create_task(self._stop.wait(), name="stop")
        try:
            # None of them ends by itself: if one does, stop rather than serve without it.
            done, _ = await asyncio.wait([*tasks, *workers, stopped], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._stop.set()
            self._checks = self._look()
            _log.info("stopping")
            await self._drain(workers)  # before the tasks end: running checks may wait for a key
            for task in (*tasks, stopped):
                task.cancel()
            await asyncio.gather(*tasks, stopped, return_exceptions=True)
        for task in done:
            if task is not stopped:
                task.result()

    async def _drain(self, workers: Sequence[asyncio.Task[None]]) -> None:
        """Let all of them end, and kill those that do not."""
        for keeper in self._keepers:
            keeper.stop()
        await asyncio.wait(workers, timeout=GRACE + _MARGIN)
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)

    def _look(self) -> Checks:
        """What has to be right for checks to come to this machine.

        At the start all workers are waited for. Later, one that is being replaced is Envoy's to pass by.
        """
        shutdown = Check("shutdown", "stopping" if self._stop.is_set() else "")
        listening, all_of_them = sum(keeper.listens for keeper in self._keepers), len(self._keepers)
        self._all_have_served = self._all_have_served or listening == all_of_them
        wrong = f"{listening} of {all_of_them} workers serve" if listening < all_of_them else ""
        workers = Check("workers", wrong, counts=not listening or not self._all_have_served)
        return (shutdown, *self._sources.checks(), workers)

    def _state(self) -> State:
        """What is told to whoever scrapes: of all workers together."""
        sources = self._sources
        return State(
            counted=sum((keeper.counted for keeper in self._keepers), Counted()),
            loads=sources.loads,
            keys=sources.key_states(),
            fetches=sources.fetches,
            cluster=sources.cluster,
            serving=sum(keeper.listens for keeper in self._keepers),
            processes=len(self._keepers),
            tls=sources.tls,
        )

    async def _announce(self) -> None:
        """Tell the workers, and so their health checks, whatever readiness becomes."""
        said: bool | None = None
        while True:
            self._checks = self._look()
            serving = not not_ready(self._sources.checks())
            if serving is not said:
                self._tell(STANDING, packed(Standing(serving=serving)))
            said = serving
            await self._news.wait()
            self._news.clear()

    async def _put(self, policies: Policies) -> None:
        self._tell(POLICIES, await asyncio.to_thread(loaded, policies))
        if self._in_force is not None:
            await self._in_force.put(policies)

    def _take_keys(self, keys: KeySets) -> None:
        self._tell(KEYS, packed(Keys(sets=dict(keys))))
        if self._in_force is not None:
            self._in_force.take_keys(keys)

    def _give(self, served: Served) -> None:
        self._tell(CERTIFICATES, packed(Certificates(served=served)))

    def _tell(self, rank: int, message: bytes) -> None:
        for keeper in self._keepers:
            keeper.tell(rank, message)
