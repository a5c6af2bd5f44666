"""Policies from files and a cluster: watched, read, checked, put in force all or nothing, and each set logged once."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

from countersign.edge.collector import undisturbed
from countersign.edge.keys.bind import bind
from countersign.edge.kubernetes.address import Cluster
from countersign.edge.kubernetes.placed import placed
from countersign.edge.kubernetes.standing import ClusterStanding, Watched
from countersign.edge.metrics.state import Loads
from countersign.edge.policy_files import changes, digest, parse_files, read_files
from countersign.edge.readiness import Check
from countersign.in_force import Policies
from countersign.policy.analysis.analyze import Written, analyze
from countersign.policy.analysis.surroundings import Surroundings
from countersign.policy.problems import PolicyError, Problem
from countersign.policy.resources import Resources
from countersign.settings import Settings

_log: Final = logging.getLogger(__name__)

Put = Callable[[Policies], Awaitable[None]]


class PolicySource:
    """Gives policies to ``put``: in `load`, and while the tasks of `start` run whatever replaces them.

    ``on_news`` is called whenever `checks` may have changed.
    """

    def __init__(self, settings: Settings, put: Put, on_news: Callable[[], None]) -> None:
        self._settings = settings
        self._put = put
        self._on_news = on_news
        self._files = [root for root in settings.policies if isinstance(root, Path)]
        self._cluster = _cluster_of(settings, on_news)
        self._who = " and ".join(
            ["the files"] * bool(self._files) + ["the objects of the cluster"] * bool(self._cluster)
        )
        self._digest = ""
        self._refused = ""  # why what was last found is not in force; empty if it is
        self._reading = asyncio.Lock()
        self._generation = 0
        self.loads = Loads()

    @property
    def cluster(self) -> ClusterStanding | None:
        """How it is with the cluster; None without one."""
        return None if self._cluster is None else self._cluster.standing

    def start(self, stop: asyncio.Event) -> list[asyncio.Task[None]]:
        """Watch from now on. The tasks end when they are cancelled, not by themselves before ``stop``."""
        tasks = []
        if self._files:
            tasks.append(asyncio.create_task(self._watch(changes(self._files, stop)), name="policies"))
        if self._cluster is not None:
            tasks.append(asyncio.create_task(self._cluster.run(), name="cluster"))
            tasks.append(asyncio.create_task(self._watch(self._cluster.changes()), name="policies of the cluster"))
        return tasks

    async def reread(self) -> None:
        """Look now, and say what came of it, also what was said before."""
        before = self._generation
        if self._refused:
            self._digest = self._refused = ""  # then the log says again what is wrong
        await self._look()
        if self._generation == before and not self._refused:
            _log.info("policies are unchanged: generation %d", self._generation)

    def checks(self) -> tuple[Check, ...]:
        """Whether there are policies, and whether the cluster is heard."""
        policies = self._check_of_policies()
        if self.cluster is None:
            return (policies,)
        return policies, self.cluster.check(has_policies=self._generation > 0)

    async def load(self) -> None:
        """Read the policies and put them in force, all or nothing. Raise `PolicyError` where they are broken.

        Those of a cluster come later: it may not be there, and nothing of it is in force before all of it is known.
        """
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
        name = await asyncio.to_thread(digest, texts)
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

    def _check_of_policies(self) -> Check:
        if not self._generation:
            return Check("policies", "no policy has been loaded")
        if self._refused:
            wrong = (
                f"what {self._who} say now is refused, and generation {self._generation} stays in force; see the log"
            )
            return Check("policies", wrong, counts=False)
        return Check("policies")

    async def _watch(self, changed: AsyncIterator[None]) -> None:
        async for _ in changed:
            await self._look()

    async def _look(self) -> None:
        """Put in force what files and cluster say, or tell why not."""
        async with self._reading:
            try:
                await self.load()
            except PolicyError as error:
                self._refuse(str(error))
            except Exception as error:  # noqa: BLE001 (a fault of ours ends neither the serving nor the watching)
                self._digest = ""  # it may pass
                self._refuse(f"a fault of ours: {type(error).__name__}", error)
        self._on_news()

    def _refuse(self, why: str, fault: Exception | None = None) -> None:
        """Say it once: the files are looked at again and again."""
        if why != self._refused:
            _log.error("policies not loaded, %s:\n%s", self._keep(), why, exc_info=fault)
            self.loads = self.loads.failed()
        self._refused = why

    def _analyze(self, resources: Resources, texts: Mapping[str, str]) -> tuple[Problem, ...]:
        mesh = self._settings.mesh
        surroundings = Surroundings(
            trust_domains=mesh.trust_domains, root_namespace=mesh.root_namespace, posture=mesh.posture
        )
        return analyze(Written(resources=resources, texts=texts), surroundings)

    def _keep(self) -> str:
        return "the last good set stays in force" if self._generation else "every request is denied"

    async def _put_in_force(self, policies: Policies) -> None:
        await self._put(policies)
        self._generation, self._refused = policies.generation, ""
        self.loads = self.loads.succeeded(policies.generation, time.time())
        self._on_news()
        _log.info("policies loaded: %d resources, generation %d", len(policies.resources), policies.generation)


def _cluster_of(settings: Settings, on_news: Callable[[], None]) -> Watched | None:
    clusters = [root for root in settings.policies if isinstance(root, Cluster)]
    if not clusters:
        return None
    # Only where there is one: its library takes 10 MB, and need not be installed.
    from countersign.edge.kubernetes.cluster import ClusterPolicies  # noqa: PLC0415

    return ClusterPolicies(clusters[0], on_news)
