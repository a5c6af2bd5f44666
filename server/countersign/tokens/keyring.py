"""When to fetch which key set, and which keys count meanwhile: a state machine without I/O and without a clock.

The caller fetches what is `due`, tells the outcome, and hands the request path the mapping of `keys`, which is
replaced and never changed. All times are seconds of one clock, best a monotonic one.

A source is waiting (for its next refresh) or under way (`started`, until `fetched`, `confirmed` or `failed`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from countersign.core.jwt_rule import FetchedKeys, FileKeys
from countersign.tokens.keys import KeySet

MIN_REFRESH: Final = 60.0  # an issuer may ask for any interval between this and half of `max_stale`
FIRST_RETRY: Final = 1.0  # after a failure, doubled with each further one
MAX_RETRY: Final = 60.0
MAX_RETRY_AFTER: Final = 3600.0  # a gateway's wish must not keep keys away until they are too old
FILE_POLL: Final = 2.0  # a local file costs nobody anything, so it is looked at this often

TOO_OLD: Final = KeySet(keys=(), expired=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyTimes:
    """Intervals in seconds.

    ``refresh``: between fetches if the issuer does not say (istiod's PILOT_JWT_PUB_KEY_REFRESH_INTERVAL).
    ``cooldown``: between two refreshes for the sake of an unknown key.
    ``max_stale``: how long the last good set counts while fetches fail.
    """

    refresh: float = 20 * 60.0
    cooldown: float = 30.0
    max_stale: float = 24 * 3600.0


class Origin(StrEnum):
    """Where a source's keys came from."""

    FETCHED = "fetched"
    SAVED = "saved"  # the copy that an earlier process left


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceState:
    """One source as an operator sees it, at one moment; times are seconds from then.

    ``age``: since the keys were last confirmed. ``error``: of the last fetch, empty if it was good.
    ``refresh_in``: None while a fetch is under way.
    """

    source: FetchedKeys
    keys: KeySet | None
    origin: Origin | None
    age: float | None
    expires_in: float | None
    error: str
    failures: int
    refresh_in: float | None


class _Source:
    """What is known about one source. Only `Keyring` touches it."""

    __slots__ = (
        "confirmed_at", "error", "expired", "failures", "keys", "missed_at", "next_refresh", "not_before", "origin",
        "planned",
    )  # fmt: skip

    def __init__(self, now: float) -> None:
        self.keys: KeySet | None = None
        self.origin: Origin | None = None
        self.confirmed_at: float | None = None
        self.expired = False
        self.error = ""
        self.failures = 0
        self.next_refresh: float | None = now
        self.planned: float | None = None  # when it would have been, had no key been missed
        self.missed_at: float | None = None
        self.not_before: float | None = None  # the issuer has asked to be left alone until then

    def is_due(self, now: float) -> bool:
        return self.next_refresh is not None and self.next_refresh <= now


class Keyring:
    """The key sets of every tracked source. Not thread-safe: one event loop owns it, and shares only `keys`."""

    def __init__(self, times: KeyTimes = KeyTimes()) -> None:
        self._times = times
        self._sources: dict[FetchedKeys, _Source] = {}
        self._keys: Mapping[FetchedKeys, KeySet] = MappingProxyType({})

    def track(self, sources: Iterable[FetchedKeys], now: float) -> None:
        """Track exactly these: a new one is due at once, one that is gone is forgotten with its keys."""
        known = self._sources
        self._sources = {source: known.get(source) or _Source(now) for source in sources}
        self._publish()

    def restore(self, source: FetchedKeys, keys: KeySet, age: float, now: float) -> None:
        """A set that was good ``age`` seconds ago, for a source of which nothing else is known. It stays due."""
        state = self._sources.get(source)
        if state is None or state.confirmed_at is not None or state.expired or not keys.keys:
            return
        if 0 <= age < self._times.max_stale:
            state.keys, state.confirmed_at, state.origin = keys, now - age, Origin.SAVED
            self._publish()

    def due(self, now: float) -> tuple[FetchedKeys, ...]:
        """The sources to fetch now. Sets that have grown too old are dropped on the way."""
        for state in self._sources.values():
            if state.confirmed_at is not None and now - state.confirmed_at >= self._times.max_stale:
                state.keys = state.confirmed_at = state.origin = None
                state.expired = True
        self._publish()
        return tuple(source for source, state in self._sources.items() if state.is_due(now))

    def next_due(self) -> float | None:
        """When `due` should be asked again; None if only an outcome can change anything."""
        times = [state.next_refresh for state in self._sources.values() if state.next_refresh is not None]
        expiring = [state.confirmed_at for state in self._sources.values() if state.confirmed_at is not None]
        return min([*times, *(at + self._times.max_stale for at in expiring)], default=None)

    def started(self, source: FetchedKeys) -> None:
        """A fetch is under way."""
        state = self._sources.get(source)
        if state is not None:
            state.next_refresh = None

    def fetched(
        self, source: FetchedKeys, keys: KeySet, now: float, max_age: float | None = None, *, jitter: float = 0.0
    ) -> None:
        """A fetch has brought a key set, to be kept for ``max_age`` seconds if the issuer says so.

        A set without a usable key counts as a failure. ``jitter``, 0 to 1, comes up to a tenth earlier, so that
        replicas do not fetch in step.
        """
        if not keys.keys:
            self.failed(source, f"no usable key among {len(keys.rejected)}", now, jitter=jitter)
            return
        state = self._sources.get(source)
        if state is None:  # no longer tracked when its answer came
            return
        state.keys = keys.sharing(state.keys)  # an equal set stays the same object: nobody takes it for a change
        self._good(source, state, now, max_age, jitter)

    def confirmed(self, source: FetchedKeys, now: float, max_age: float | None = None, *, jitter: float = 0.0) -> None:
        """The issuer says that its set is still the one that we have. Without one, that is a failure."""
        state = self._sources.get(source)
        if state is None:
            return
        if state.keys is None:
            self.failed(source, "unchanged, and the set has meanwhile grown too old", now, jitter=jitter)
        else:
            self._good(source, state, now, max_age, jitter)

    def _good(self, source: FetchedKeys, state: _Source, now: float, max_age: float | None, jitter: float) -> None:
        interval = FILE_POLL
        if not isinstance(source, FileKeys):
            wished = self._times.refresh if max_age is None else max(max_age, MIN_REFRESH)
            interval = min(wished, self._times.max_stale / 2)  # or keys would grow too old between two good fetches
        state.confirmed_at, state.origin, state.expired = now, Origin.FETCHED, False
        state.error, state.failures = "", 0
        state.planned = state.not_before = None
        state.next_refresh = now + interval * (1 - jitter / 10)
        self._publish()

    def failed(
        self, source: FetchedKeys, error: str, now: float, *, retry_after: float | None = None, jitter: float = 0.0
    ) -> None:
        """A fetch has failed; the last good set stays. ``jitter``, 0 to 1, comes up to half later.

        ``retry_after``: how long the issuer asks to be left alone, in seconds. A refresh that was only for a missed
        key leaves the next one where it was planned: a flood of made-up keys makes no retries.
        """
        state = self._sources.get(source)
        if state is None:
            return
        limit = FILE_POLL if isinstance(source, FileKeys) else MAX_RETRY
        retry = min(FIRST_RETRY * 2.0 ** min(state.failures, 10), limit) * (1 + jitter / 2)
        if retry_after is not None:
            retry = max(retry, min(retry_after, MAX_RETRY_AFTER) * (1 + jitter / 10))
            state.not_before = now + retry
        state.error, state.failures = error, state.failures + 1
        state.next_refresh = max(now + retry, state.planned or now)
        state.planned = None

    def key_missed(self, source: FetchedKeys, now: float) -> bool:
        """A token needs a key that is not there: whether a refresh is now due or under way.

        At once, but at most once per cooldown whatever the outcome, and not while the issuer asks to be left alone:
        else anybody could make us hammer the issuer.
        """
        state = self._sources.get(source)
        if state is None:
            return False
        if state.next_refresh is None or state.is_due(now):
            return True
        if state.not_before is not None and now < state.not_before:
            return False
        if state.missed_at is not None and now - state.missed_at < self._times.cooldown:
            return False
        state.planned = state.next_refresh
        state.missed_at = state.next_refresh = now
        return True

    def keys(self) -> Mapping[FetchedKeys, KeySet]:
        """The sets that count, immutable; the same object as long as nothing has changed.

        A set that has grown too old is there as `TOO_OLD`, without keys.
        """
        return self._keys

    def states(self, now: float) -> tuple[SourceState, ...]:
        """Every tracked source, for operators."""
        return tuple(_state(source, state, now, self._times) for source, state in self._sources.items())

    def state(self, source: FetchedKeys, now: float) -> SourceState | None:
        """One source; None if it is not tracked."""
        state = self._sources.get(source)
        return None if state is None else _state(source, state, now, self._times)

    def _publish(self) -> None:
        keys = {
            source: TOO_OLD if state.keys is None else state.keys
            for source, state in self._sources.items()
            if state.keys is not None or state.expired
        }
        if keys != self._keys:
            self._keys = MappingProxyType(keys)


def _state(source: FetchedKeys, state: _Source, now: float, times: KeyTimes) -> SourceState:
    age = None if state.confirmed_at is None else now - state.confirmed_at
    return SourceState(
        source=source,
        keys=state.keys,
        origin=state.origin,
        age=age,
        expires_in=None if age is None else times.max_stale - age,
        error=state.error,
        failures=state.failures,
        refresh_in=None if state.next_refresh is None else state.next_refresh - now,
    )
