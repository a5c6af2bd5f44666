"""Where policies and keys come from: files and a cluster, watched, and issuers. Each is read, checked, logged once."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

from countersign.certificates.served import Served
from countersign.core.jwt_rule import FetchedKeys
from countersign.edge.collector import undisturbed
from countersign.edge.keys.bind import bind
from countersign.edge.keys.fetcher import KeyFetcher, KeySets
from countersign.edge.keys.saved import prepare
from countersign.edge.keys.url import shown
from countersign.edge.kubernetes.address import Cluster
from countersign.edge.kubernetes.placed import placed
from countersign.edge.kubernetes.standing import ClusterStanding, Watched
from countersign.edge.metrics.state import Loads
from countersign.edge.policy_files import changes, digest, parse_files, read_files
from countersign.edge.readiness import Check, not_ready
from countersign.edge.tls.source import TlsSource, TlsStanding
from countersign.in_force import Policies
from countersign.policy.analysis.analyze import Written, analyze
from countersign.policy.analysis.surroundings import Surroundings
from countersign.policy.problems import PolicyError, Problem
from countersign.policy.resources import Resources
from countersign.settings import Settings
from countersign.tokens.keyring import SourceState

_log: Final = logging.getLogger(__name__)

Put = Callable[[Policies], Awaitable[None]]
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
        self._files = [root for root in settings.policies if isinstance(root, Path)]
        self._cluster = _cluster_of(settings, on_news)
        self._who = " and ".join(
            ["the files"] * bool(self._files) + ["the objects of the cluster"] * bool(self._cluster)
        )
        self._digest = ""
        self._refused = ""  # why what was last found is not in force; empty if it is
        self._reading = asyncio.Lock()
        self._asked = asyncio.Event()
        self._generation = 0
        self._has_been_ready = False
        self.loads = Loads()

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
        return None if self._cluster is None else self._cluster.standing

    async def load(self, stop: asyncio.Event) -> None:
        """Read certificates and policies for the first time. Once ``stop`` is set, it may return without them.

        Those of a cluster come later: it may not be there, and nothing of it is in force before all of it is known.
        Raise `PolicyError`, `TlsError` or OSError where that is not possible.
        """
        if self._tls is not None:
            await self._tls.load(stop)
        if self._settings.keys.cache_directory is not None:
            prepare(self._settings.keys.cache_directory)
        await self._load()

    def start(self, stop: asyncio.Event) -> list[asyncio.Task[None]]:
        """Watch and fetch from now on. The tasks end when they are cancelled, not by themselves before ``stop``."""
        tasks = [
            asyncio.create_task(self._fetcher.run(), name="keys"),
            asyncio.create_task(self._obey(), name="reloads"),
        ]
        if self._files:
            tasks.append(asyncio.create_task(self._watch(changes(self._files, stop)), name="policies"))
        if self._cluster is not None:
            tasks.append(asyncio.create_task(self._cluster.run(), name="cluster"))
            tasks.append(asyncio.create_task(self._watch(self._cluster.changes()), name="policies of the cluster"))
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
        found = (
            self._check_of_policies(),
            *self._check_of_cluster(),
            *map(self._check_of_keys, self._fetcher.states()),
        )
        self._has_been_ready = self._has_been_ready or not not_ready(found)
        return found if self.tls is None else (*found, self.tls.check(time.time()))

    def _check_of_policies(self) -> Check:
        if not self._generation:
            return Check("policies", "no policy has been loaded")
        if self._refused:
            wrong = (
                f"what {self._who} say now is refused, and generation {self._generation} stays in force; see the log"
            )
            return Check("policies", wrong, counts=False)
        return Check("policies")

    def _check_of_cluster(self) -> tuple[Check, ...]:
        return () if self.cluster is None else (self.cluster.check(has_policies=self._generation > 0),)

    def _check_of_keys(self, state: SourceState) -> Check:
        name = f"keys of {shown(state.source)}"
        if state.keys is not None:
            wrong = f"those at hand count, new ones do not come: {state.error}" if state.error else ""
            return Check(name, wrong, counts=False)
        if not state.failures:
            return Check(name, f"fetching keys from {shown(state.source)}", counts=not self._has_been_ready)
        wrong = f"no keys from {shown(state.source)}, its tokens are refused: {state.error}"
        return Check(name, wrong, counts=self._settings.keys.requires(state.source) and not self._has_been_ready)

    async def _watch(self, changed: AsyncIterator[None]) -> None:
        async for _ in changed:
            await self._look()

    async def _obey(self) -> None:
        """Do what `reload` says."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            _log.info("asked to reload: reading the policies and the files with certificates and keys again")
            if self._tls is not None:
                await self._tls.reread()
            self._fetcher.reread()
            before = self._generation
            if self._refused:
                self._digest = self._refused = ""  # then the log says again what is wrong
            await self._look()
            if self._generation == before and not self._refused:
                _log.info("policies are unchanged: generation %d", self._generation)

    async def _look(self) -> None:
        """Put in force what files and cluster say, or tell why not."""
        async with self._reading:
            try:
                await self._load()
            except PolicyError as error:
                if str(error) != self._refused:  # the files are looked at again and again
                    _log.error("policies not loaded, %s:\n%s", self._keep(), error)
                    self.loads = self.loads.failed()
                self._refused = str(error)
        self._on_news()

    async def _load(self) -> None:
        """Read the policies and put them in force, all or nothing. Raise `PolicyError` where they are broken."""
        try:
            texts = await asyncio.to_thread(read_files, self._files)
        except PolicyError:
            self._digest = ""  # what can be read again is news, also if it is as before
            raise
        if self._cluster is not None:
            found = self._cluster.texts()
            if found is None:
                return
            texts |= found
        name = digest(texts)
        if name == self._digest:
            return
        self._digest = name
        with undisturbed():
            try:
                loaded, inline = await asyncio.to_thread(parse_files, texts, self._settings.mesh.namespace)
            except PolicyError as error:
                raise PolicyError(placed(error.problems, texts)) from error
            for resource in loaded.skipped:
                _log.info("passed over, it is of another kind: %s", resource)
            if len(loaded.resources):
                resources = bind(loaded.resources, self._settings.keys.issuers)
                await self._put_in_force(Policies(resources=resources, inline=inline, generation=self._generation + 1))
            else:
                # Istio without policies allows everything; a mount that failed must not.
                self._refused = f"found no policy in {', '.join(map(str, self._settings.policies))}"
                _log.error("%s: %s", self._refused, self._keep())
                self.loads = self.loads.failed()
        # After the policies, not before them: what only warns must not delay them.
        warnings = (*loaded.warnings, *await asyncio.to_thread(self._analyze, loaded.resources, texts))
        for warning in placed(warnings, texts):
            _log.warning("%s", warning)

    def _analyze(self, resources: Resources, texts: Mapping[str, str]) -> tuple[Problem, ...]:
        mesh = self._settings.mesh
        surroundings = Surroundings(
            trust_domains=mesh.trust_domains, root_namespace=mesh.root_namespace, posture=mesh.posture
        )
        return analyze(Written(resources=resources, texts=texts), surroundings)

    def _keep(self) -> str:
        return "the last good set stays in force" if self._generation else "every request is denied"

    async def _put_in_force(self, policies: Policies) -> None:
        sources = policies.sources()
        await self._fetcher.recall(sources)
        await self._put(policies)
        self._generation, self._refused = policies.generation, ""
        self.loads = self.loads.succeeded(policies.generation, time.time())
        self._fetcher.track(sources)
        self._on_news()
        _log.info("policies loaded: %d resources, generation %d", len(policies.resources), policies.generation)


def _cluster_of(settings: Settings, on_news: Callable[[], None]) -> Watched | None:
    clusters = [root for root in settings.policies if isinstance(root, Cluster)]
    if not clusters:
        return None
    # Only where there is one: its library takes 10 MB, and need not be installed.
    from countersign.edge.kubernetes.cluster import ClusterPolicies  # noqa: PLC0415

    return ClusterPolicies(clusters[0], on_news)
