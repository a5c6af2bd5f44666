"""The server's certificates from wherever they come: the latest that can be used, and what is wrong with later ones."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from countersign.certificates.served import Served
from countersign.edge.policy_files import changes
from countersign.edge.readiness import Check
from countersign.edge.tls.files import Reader
from countersign.edge.tls.settings import TlsFiles, TlsSettings

_log: Final = logging.getLogger(__name__)


_NAME: Final = "TLS certificate"


class TlsError(ValueError):
    """There is no certificate to serve with; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsStanding:
    """How it is with the certificates, for readiness and metrics.

    Seconds since the epoch: ``not_before`` and ``not_after`` are when those in use begin and end, ``loaded`` is when
    they were taken, 0 if never. ``problem``:
    why those that came later are not in use; empty if none came. ``rotations``: how often new ones were taken.
    """

    not_before: float
    not_after: float
    loaded: float
    problem: str
    rotations: int

    def check(self, now: float) -> Check:
        """For readiness: what came later and is broken takes no traffic away, until those in use have expired."""
        if now >= self.not_after:
            return Check(_NAME, f"the TLS certificate has expired at {_time(self.not_after)}")
        kept = f"a new one is refused, that until {_time(self.not_after)} stays in use: {self.problem}"
        return Check(_NAME, kept if self.problem else "", counts=False)


class TlsSource:
    """Gives certificates to ``give``: the first ones in `load`, and whatever replaces them in `watch`."""

    def __init__(self, settings: TlsSettings, give: Callable[[Served], None], on_news: Callable[[], None]) -> None:
        self._settings = settings
        self._give = give
        self._on_news = on_news
        self._offers: AsyncIterator[Served | str] | None = None
        self._reader: Reader | None = None  # of files, once they were read
        self._reading = asyncio.Lock()  # what is read first is taken first
        self._latest: Served | None = None
        self._standing = TlsStanding(not_before=0.0, not_after=0.0, loaded=0.0, problem="", rotations=-1)

    @property
    def standing(self) -> TlsStanding:
        """How it is by now."""
        return self._standing

    async def load(self, stop: asyncio.Event) -> None:
        """Take the first certificates. Raise `TlsError` where there are none; return without any once ``stop`` is set.

        Files must be there. A SPIFFE agent is waited for.
        """
        source = self._settings.source
        if isinstance(source, TlsFiles):
            await self._load_files(Reader(source), stop)
            return
        from countersign.edge.tls.workload_api import from_workload_api  # noqa: PLC0415 (grpcio, 10 MB)

        self._offers = from_workload_api(source.socket, self._settings.callers, stop)
        async for offer in self._offers:
            self._hear(offer)
            if isinstance(offer, Served):
                return

    async def _load_files(self, reader: Reader, stop: asyncio.Event) -> None:
        offer = await reader.offer()
        if not isinstance(offer, Served):
            raise TlsError(offer)
        self._take(offer)
        self._offers, self._reader = self._from_files(reader, stop), reader

    async def _from_files(self, reader: Reader, stop: asyncio.Event) -> AsyncIterator[Served | str]:
        """Whatever else the files hold by and by."""
        async for _ in changes(reader.paths, stop):
            async with self._reading:
                if await reader.has_changed():
                    yield await reader.offer()

    async def watch(self) -> None:
        """Take whatever comes, until ``stop`` of `load`. What is broken is said once, and changes nothing."""
        if self._offers is None:
            raise TlsError("nothing has been loaded")
        async for offer in self._offers:
            self._hear(offer)

    async def reread(self) -> None:
        """Look at the files now, and say what came of it, also what was said before. An agent speaks by itself."""
        reader = self._reader
        if reader is None:
            return
        async with self._reading:
            offer = await reader.offer()
            if offer == self._latest:
                _log.info("the TLS certificate is unchanged, until %s", _time(self._standing.not_after))
            self._hear(offer, again=True)

    def _hear(self, offer: Served | str, *, again: bool = False) -> None:
        if isinstance(offer, Served):
            self._take(offer)
        elif again or offer != self._standing.problem:  # files are looked at again and again
            self._refuse(offer)

    def _take(self, served: Served) -> None:
        if served == self._latest:  # what was broken between is mended, or an agent has come back
            self._standing = replace(self._standing, problem="")
            self._on_news()
            return
        self._give(served)
        self._latest = served
        self._standing = TlsStanding(
            not_before=served.leaf.not_before,
            not_after=served.not_after,
            loaded=time.time(),
            problem="",
            rotations=self._standing.rotations + 1,
        )
        who = ", ".join((*served.leaf.uris, *served.leaf.dns)) or served.leaf.subject
        _log.info("TLS certificate of %s, until %s", who, _time(served.not_after))
        self._on_news()

    def _refuse(self, why: str) -> None:
        before = self._standing
        kept = f"the one until {_time(before.not_after)} stays in use" if before.loaded else "none is in use yet"
        _log.error("TLS certificate not loaded, %s: %s", kept, why)
        self._standing = replace(before, problem=why)
        self._on_news()


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
