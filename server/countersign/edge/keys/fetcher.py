"""Gets whatever the keyring wants, beside the request path: from issuers, from files, and after a restart from copies.

There is one fetch of a source at a time, whoever asks, and the keyring says when one may be.
"""

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from countersign.core.jwt_rule import FetchedKeys, FileKeys, RemoteKeys
from countersign.edge.keys import files
from countersign.edge.keys.access import KeySettings
from countersign.edge.keys.changes import changes
from countersign.edge.keys.copies import Copies
from countersign.edge.keys.fetch import Fetched, FetchError, fetch
from countersign.edge.keys.freshness import Validators
from countersign.edge.keys.url import shown
from countersign.tokens.keyring import TOO_OLD, Keyring, SourceState
from countersign.tokens.keys import KeySet

_log: Final = logging.getLogger(__name__)

KeySets = Mapping[FetchedKeys, KeySet]
_Flight = asyncio.Task[Fetched]


class KeyFetcher:
    """Fetches the tracked key sets. ``on_change`` gets the new mapping whenever the keys change.

    ``on_landing`` is called when a fetch has ended, well or not. Everything happens on one event loop.
    """

    def __init__(
        self,
        on_change: Callable[[KeySets], None],
        settings: KeySettings = KeySettings(),  # noqa: B008 (frozen)
        *,
        on_landing: Callable[[], None] = lambda: None,
    ) -> None:
        self._keyring = Keyring(settings.times)
        self._settings = settings
        self._copies = Copies(settings.cache_directory, settings.times.max_stale)
        self._on_change = on_change
        self._on_landing = on_landing
        self._published: KeySets = self._keyring.keys()
        self._validators: dict[FetchedKeys, Validators | None] = {}
        self._errors: dict[FetchedKeys, str] = {}
        self._flights: dict[FetchedKeys, _Flight] = {}
        self._woken = asyncio.Event()
        self.fetches: Counter[tuple[str, ...]] = Counter()  # by source, and by how they ended: for operators

    async def recall(self, sources: Iterable[FetchedKeys]) -> None:
        """Read the copies of those that are not tracked yet. `track` puts them in place."""
        known = {state.source for state in self.states()}
        await self._copies.recall([s for s in sources if isinstance(s, RemoteKeys) and s not in known])

    def track(self, sources: Iterable[FetchedKeys]) -> None:
        """Fetch these from now on, and forget all others."""
        now = time.monotonic()
        self._keyring.track(sources, now)
        tracked = {state.source for state in self.states()}
        for source, copy in self._copies.take():
            self._keyring.restore(source, copy.keys, copy.age, now)
            self._validators[source] = copy.validators
            _log.info("keys of %s from the copy of %.0f s ago, until it answers", source, copy.age)
        self._validators = {source: known for source, known in self._validators.items() if source in tracked}
        self._errors = {source: error for source, error in self._errors.items() if source in tracked}
        self._copies.retain(tracked)
        self._publish()
        self._woken.set()

    def states(self) -> tuple[SourceState, ...]:
        """Every tracked source, for operators."""
        return self._keyring.states(time.monotonic())

    def refresh(self, source: FetchedKeys) -> asyncio.Future[None] | None:
        """A future that is done when the fetch for a missed key has ended, well or not.

        Whoever misses a key while a fetch is under way waits for that one. None if the cooldown forbids to fetch:
        there is nothing to wait for. Cancelling the future cancels no fetch.
        """
        if not self._keyring.key_missed(source, time.monotonic()):
            return None
        landed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def land(_: _Flight) -> None:
            if not landed.done():
                landed.set_result(None)

        self._start(source)
        self._flights[source].add_done_callback(land)
        return landed

    async def run(self) -> None:
        """Fetch whatever is due, until cancelled."""
        writing = asyncio.create_task(self._copies.run(), name="copies of keys")
        try:
            while True:
                self._woken.clear()
                for source in self._keyring.due(time.monotonic()):
                    self._start(source)
                self._publish()
                next_due = self._keyring.next_due()
                try:
                    async with asyncio.timeout(None if next_due is None else max(next_due - time.monotonic(), 0)):
                        await self._woken.wait()
                except TimeoutError:
                    continue
        finally:
            flights = (*self._flights.values(), writing)
            for flight in flights:
                flight.cancel()
            await asyncio.gather(*flights, return_exceptions=True)

    def reread(self) -> None:
        """Look at the files with keys now. Issuers are asked no sooner for it."""
        for state in self.states():
            if isinstance(state.source, FileKeys):
                self._start(state.source)

    def _start(self, source: FetchedKeys) -> None:
        self._keyring.started(source)
        if source not in self._flights:
            flight = asyncio.create_task(self._fetch(source), name=f"keys of {source}")
            self._flights[source] = flight
            # The first of its callbacks: whoever waits for the flight finds the keys in place.
            flight.add_done_callback(lambda flight: self._land(source, flight))

    async def _fetch(self, source: FetchedKeys) -> Fetched:
        if isinstance(source, FileKeys):
            return Fetched(keys=await asyncio.to_thread(files.read, source), text=None)
        held = self._keyring.keys().get(source, TOO_OLD)
        known = None if held.expired else self._validators.get(source)  # ask for changes only of what is there
        return await fetch(source, self._settings.access(source.access), known)

    def _land(self, source: FetchedKeys, flight: _Flight) -> None:
        del self._flights[source]
        if flight.cancelled():
            return
        now, jitter = time.monotonic(), random.random()  # noqa: S311 (spreads load, hides nothing)
        ended = "changed"
        match flight.exception():
            case None:
                ended = "unchanged" if flight.result().keys is None else ended
                self._take(source, flight.result(), now, jitter)
            case FetchError() as error:
                self._keyring.failed(source, str(error), now, retry_after=error.retry_after, jitter=jitter)
            case error:  # a fault of ours must not end the fetching; its text may repeat what was received
                self._keyring.failed(source, type(error).__name__, now, jitter=jitter)
        state = self._keyring.state(source, now)
        if state is not None:  # it is still wanted
            self.fetches[shown(source), "failed" if state.failures else ended] += 1
        self._tell_error(source)
        self._publish()
        self._on_landing()
        self._woken.set()

    def _take(self, source: FetchedKeys, fetched: Fetched, now: float, jitter: float) -> None:
        if fetched.keys is None:
            self._keyring.confirmed(source, now, fetched.freshness.max_age, jitter=jitter)
        else:
            self._keyring.fetched(source, fetched.keys, now, fetched.freshness.max_age, jitter=jitter)
        state = self._keyring.state(source, now)
        if isinstance(source, RemoteKeys) and state is not None and not state.failures:
            self._validators[source] = fetched.validators
            self._copies.keep(source, fetched)

    def _tell_error(self, source: FetchedKeys) -> None:
        """Log what is wrong with a source when it begins, changes and ends, and not with each attempt."""
        state = self._keyring.state(source, time.monotonic())
        if state is None or state.error == self._errors.get(source, ""):
            return
        self._errors[source] = state.error
        if not state.error:
            _log.info("keys of %s come again", source)
        elif state.expires_in is None:
            _log.warning("no keys from %s, its tokens are refused: %s", source, state.error)
        else:
            hours = state.expires_in / 3600
            _log.warning("no keys from %s, those at hand count for %.1f h more: %s", source, hours, state.error)

    def _publish(self) -> None:
        keys = self._keyring.keys()
        if keys is self._published:
            return
        before, self._published = self._published, keys
        self._on_change(keys)
        for source, now_held in keys.items():
            held = before.get(source)
            if now_held.expired and held is not now_held:
                _log.error("the keys of %s are too old, its tokens are refused", source)
            elif held is not now_held:
                for level, line in changes(source, held, now_held):
                    _log.log(level, "%s", line)
