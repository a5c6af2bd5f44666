"""The policies of a cluster: every collection followed, together as texts, and how it is with the API server."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final

from countersign.edge.kubernetes.address import Cluster
from countersign.edge.kubernetes.follow import UNASKED, Follower
from countersign.edge.kubernetes.listing import collections_of
from countersign.edge.kubernetes.objects import Objects
from countersign.edge.kubernetes.standing import ClusterStanding

_log: Final = logging.getLogger(__name__)

_SETTLE: Final = 0.1  # seconds of quiet after which changes count as one
_SETTLED: Final = 1.0  # seconds after which they count anyway


class ClusterPolicies:
    """``on_news`` is called whenever `standing` may have changed."""

    def __init__(self, cluster: Cluster, on_news: Callable[[], None]) -> None:
        self._cluster = cluster
        self._on_news = on_news
        self._changed = asyncio.Event()
        collections = collections_of(cluster)
        self._objects = Objects(collections)
        self._followers = [
            Follower(cluster, each, self._objects, self._changed.set, self._hear) for each in collections
        ]
        self._problem = UNASKED  # what the log has said

    def texts(self) -> Mapping[str, str] | None:
        """Every object's text by its name; None until each collection has been listed."""
        return self._objects.texts()

    @property
    def standing(self) -> ClusterStanding:
        """How it is with the API server."""
        problems = dict.fromkeys(each.problem for each in self._followers if each.problem)
        told = [problem for problem in problems if problem != UNASKED] or [*problems]
        return ClusterStanding(
            cluster=self._cluster,
            problem="; ".join(told),
            contact=min(each.contact for each in self._followers),
            lists=sum(each.lists for each in self._followers),
            failures=sum(each.failures for each in self._followers),
        )

    async def run(self) -> None:
        """Follow, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for follower in self._followers:
                group.create_task(follower.run(), name="cluster")

    async def changes(self) -> AsyncIterator[None]:
        """Wake after changes of `texts`. Those that come together wake once."""
        while True:
            await self._changed.wait()
            latest = asyncio.get_running_loop().time() + _SETTLED
            while self._changed.is_set() and asyncio.get_running_loop().time() < latest:
                self._changed.clear()
                await asyncio.sleep(_SETTLE)
            self._changed.clear()
            if self.texts() is not None:
                yield

    def _hear(self) -> None:
        problem = self.standing.problem
        if problem not in {self._problem, UNASKED}:
            kept = "what it said last counts" if self.texts() is not None else "nothing is known of it yet"
            if problem:
                _log.error("%s cannot be watched, %s: %s", self._cluster, kept, problem)
            else:
                _log.info("%s is watched", self._cluster)
            self._problem = problem
        self._on_news()
