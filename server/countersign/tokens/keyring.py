"""When to fetch which key set, and which keys count meanwhile: a state machine without I/O and without a clock.

The caller fetches what is `due`, tells the outcome, and hands the request path the mapping of `keys`, which is
replaced and never changed. All times are seconds of one clock, best a monotonic one.

A source is waiting (for its next refresh) or under way (`started`, until `fetched` or `failed`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from countersign.core.jwt_rule import RemoteKeys
from countersign.tokens.keys import KeySet

REFRESH: Final = 20 * 60.0  # istiod's PILOT_JWT_PUB_KEY_REFRESH_INTERVAL
MIN_REFRESH: Final = 60.0  # an issuer may ask for any interval between these two
MAX_REFRESH: Final = 24 * 3600.0
FIRST_RETRY: Final = 1.0  # after a failure, doubled with each further one
MAX_RETRY: Final = 60.0
COOLDOWN: Final = 10.0  # between two refreshes for the sake of an unknown key
MAX_STALE: Final = 24 * 3600.0  # how long the last good set counts while fetches fail


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceState:
    """One source as an operator sees it. ``error`` is that of the last fetch, empty if it was good."""

    source: RemoteKeys
    keys: KeySet | None
    fetched_at: float | None
    error: str
    failures: int
    next_refresh: float | None  # None: under way


class _Source:
    """What is known about one source. Only `Keyring` touches it."""

    __slots__ = ("error", "failures", "fetched_at", "keys", "missed_at", "next_refresh")

    def __init__(self, now: float) -> None:
        self.keys: KeySet | None = None
        self.fetched_at: float | None = None
        self.error = ""
        self.failures = 0
        self.next_refresh: float | None = now
        self.missed_at: float | None = None


class Keyring:
    """The key sets of every tracked source. Not thread-safe: one event loop owns it, and shares only `keys`."""

    def __init__(self) -> None:
        self._sources: dict[RemoteKeys, _Source] = {}
        self._keys: Mapping[RemoteKeys, KeySet] = MappingProxyType({})

    def track(self, sources: Iterable[RemoteKeys], now: float) -> None:
        """Track exactly these: a new one is due at once, one that is gone is forgotten with its keys."""
        known = self._sources
        self._sources = {source: known.get(source) or _Source(now) for source in sources}
        self._publish()

    def due(self, now: float) -> tuple[RemoteKeys, ...]:
        """The sources to fetch now. Sets that have grown too old are dropped on the way."""
        for state in self._sources.values():
            if state.fetched_at is not None and now - state.fetched_at >= MAX_STALE:
                state.keys = state.fetched_at = None
        self._publish()
        return tuple(source for source, state in self._sources.items() if _is_due(state, now))

    def next_due(self) -> float | None:
        """When `due` should be asked again; None if only an outcome can change anything."""
        times = [state.next_refresh for state in self._sources.values() if state.next_refresh is not None]
        times += [state.fetched_at + MAX_STALE for state in self._sources.values() if state.fetched_at is not None]
        return min(times, default=None)

    def started(self, source: RemoteKeys) -> None:
        """A fetch is under way."""
        state = self._sources.get(source)
        if state is not None:
            state.next_refresh = None

    def fetched(
        self, source: RemoteKeys, keys: KeySet, now: float, max_age: float | None = None, *, jitter: float = 0.0
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
        interval = REFRESH if max_age is None else min(max(max_age, MIN_REFRESH), MAX_REFRESH)
        if keys != state.keys:  # an equal set stays the same object, so that nobody takes it for a change
            state.keys = keys
        state.fetched_at, state.error, state.failures = now, "", 0
        state.next_refresh = now + interval * (1 - jitter / 10)
        self._publish()

    def failed(self, source: RemoteKeys, error: str, now: float, *, jitter: float = 0.0) -> None:
        """A fetch has failed; the last good set stays. ``jitter``, 0 to 1, comes up to half later."""
        state = self._sources.get(source)
        if state is None:
            return
        retry = min(FIRST_RETRY * 2.0 ** min(state.failures, 10), MAX_RETRY)
        state.error, state.failures = error, state.failures + 1
        state.next_refresh = now + retry * (1 + jitter / 2)

    def key_missed(self, source: RemoteKeys, now: float) -> bool:
        """A token needs a key that is not there: whether a refresh is now due or under way.

        At once, but at most once per cooldown whatever the outcome: else anybody could make us hammer the issuer.
        """
        state = self._sources.get(source)
        if state is None:
            return False
        if state.next_refresh is None or _is_due(state, now):
            return True
        if state.missed_at is not None and now - state.missed_at < COOLDOWN:
            return False
        state.missed_at = state.next_refresh = now
        return True

    def keys(self) -> Mapping[RemoteKeys, KeySet]:
        """The sets that count, immutable; the same object as long as nothing has changed."""
        return self._keys

    def states(self) -> tuple[SourceState, ...]:
        """Every tracked source, for operators."""
        return tuple(
            SourceState(
                source=source,
                keys=state.keys,
                fetched_at=state.fetched_at,
                error=state.error,
                failures=state.failures,
                next_refresh=state.next_refresh,
            )
            for source, state in self._sources.items()
        )

    def _publish(self) -> None:
        keys = {source: state.keys for source, state in self._sources.items() if state.keys is not None}
        if keys != self._keys:
            self._keys = MappingProxyType(keys)


def _is_due(state: _Source, now: float) -> bool:
    return state.next_refresh is not None and state.next_refresh <= now
