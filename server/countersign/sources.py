"""Where policies, keys and certificates come from: each is read, checked and logged once, for all who need it."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Final

from countersign.certificates.served import Served
from countersign.core.jwt_rule import FetchedKeys
from countersign.edge.keys.fetcher import KeyFetcher, KeySets
from countersign.edge.keys.saved import prepare
from countersign.edge.keys.url import shown
from countersign.edge.kubernetes.standing import ClusterStanding
from countersign.edge.metrics.state import Loads
from countersign.edge.readiness import Check, not_ready
from countersign.edge.tls.source import TlsSource, TlsStanding
from countersign.in_force import Policies
from countersign.policy_source import PolicySource, Put
from countersign.settings import Settings
from countersign.tokens.keyring import SourceState

_log: Final = logging.getLogger(__name__)

TakeKeys = Callable[[KeySets], None]
Give = Callable[[Served], None]


class Sources:
    """Gives policies to ``put``, keys to ``take_keys``, the server's certificates to ``give``.

    The first time in `load` (keys excepted), and then while it runs.

    ``on_news`` is called whenever `checks` may have changed.
    """

    def __init__(
        self, settings: Settings, put: Put, take_keys: TakeKeys, give: Give, on_news: Callable[[], None]
    ) -> None:
        self._settings = settings
        self._put = put
        self._on_news = on_news
        self._fetcher = KeyFetcher(take_keys, settings.keys, on_landing=on_news)
        self._tls = None if settings.tls is None else TlsSource(settings.tls, give, on_news)
        self._policies = PolicySource(settings, self._put_in_force, on_news)
        self._asked = asyncio.Event()
        self._has_been_ready = False

    @property
    def fetches(self) -> Mapping[tuple[str, ...], int]:
        """How often keys were fetched, by source and by how that ended."""
        return self._fetcher.fetches

    def key_states(self) -> tuple[SourceState, ...]:
        """Every source of keys."""
        return self._fetcher.states()

    @property
    def tls(self) -> TlsStanding | None:
        """How it is with the server's certificates; None without TLS."""
        return None if self._tls is None else self._tls.standing

    @property
    def cluster(self) -> ClusterStanding | None:
        """How it is with the cluster that policies come from; None without one."""
        return self._policies.cluster

    @property
    def loads(self) -> Loads:
        """How often policies were loaded, and how that ended."""
        return self._policies.loads

    async def load(self, stop: asyncio.Event) -> None:
        """Read certificates and policies for the first time. Once ``stop`` is set, it may return without them.

        Those of a cluster come later. Raise `PolicyError`, `TlsError` or OSError where that is not possible.
        """
        if self._tls is not None:
            await self._tls.load(stop)
        if self._settings.keys.cache_directory is not None:
            prepare(self._settings.keys.cache_directory)
        await self._policies.load()

    def start(self, stop: asyncio.Event) -> list[asyncio.Task[None]]:
        """Watch and fetch from now on. The tasks end when they are cancelled, not by themselves before ``stop``."""
        tasks = [
            asyncio.create_task(self._fetcher.run(), name="keys"),
            asyncio.create_task(self._obey(), name="reloads"),
            *self._policies.start(stop),
        ]
        if self._tls is not None:
            tasks.append(asyncio.create_task(self._tls.watch(), name="certificates"))
        return tasks

    def reload(self) -> None:
        """Read the policies and the files with certificates and keys again, now."""
        self._asked.set()

    def refresh(self, source: FetchedKeys) -> asyncio.Future[None] | None:
        """Ask for a key that is missed; see `KeyFetcher.refresh`."""
        return self._fetcher.refresh(source)

    def checks(self) -> tuple[Check, ...]:
        """What requests need: policies, the keys of every issuer, and with TLS a certificate.

        Keys are waited for once, at the start: later, a new issuer must not take the others' traffic away. Those that
        are not required are waited for until they have been asked for.
        """
        found = (*self._policies.checks(), *map(self._check_of_keys, self._fetcher.states()))
        self._has_been_ready = self._has_been_ready or not not_ready(found)
        return found if self.tls is None else (*found, self.tls.check(time.time()))

    def _check_of_keys(self, state: SourceState) -> Check:
        name = f"keys of {shown(state.source)}"
        if state.keys is not None:
            wrong = f"those at hand count, new ones do not come: {state.error}" if state.error else ""
            return Check(name, wrong, counts=False)
        if not state.failures:
            return Check(name, f"fetching keys from {shown(state.source)}", counts=not self._has_been_ready)
        wrong = f"no keys from {shown(state.source)}, its tokens are refused: {state.error}"
        return Check(name, wrong, counts=self._settings.keys.requires(state.source) and not self._has_been_ready)

    async def _obey(self) -> None:
        """Do what `reload` says."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            _log.info("asked to reload: reading the policies and the files with certificates and keys again")
            if self._tls is not None:
                await self._tls.reread()
            self._fetcher.reread()
            await self._policies.reread()

    async def _put_in_force(self, policies: Policies) -> None:
        sources = policies.sources()
        await self._fetcher.recall(sources)
        await self._put(policies)
        self._fetcher.track(sources)
