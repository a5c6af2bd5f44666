"""Follows one collection: a list, then a watch that goes on from wherever the last one ended.

A list is asked for again only where the API server says that what came between is lost (410), or where what it sends
makes no sense. Source: kubernetes.io, "Kubernetes API Concepts"; the reflector of k8s.io/client-go.
"""

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import aclosing
from typing import Final, NamedTuple

import httpx2

from countersign.edge.kubernetes.address import Cluster, ClusterError
from countersign.edge.kubernetes.api import VERSIONS, ApiError, Change, Collection, Event, watching
from countersign.edge.kubernetes.connect import connect
from countersign.edge.kubernetes.listing import listed
from countersign.edge.kubernetes.objects import Objects

_LASTING: Final = 5.0  # seconds after which the next failure is the first again
_FIRST_PAUSE: Final = 0.25  # seconds, doubled with each failure
_LAST_PAUSE: Final = 15.0
UNASKED: Final = "the API server has not answered yet"
_LONGEST_ASKED: Final = 60.0  # whatever Retry-After says


class Pace(NamedTuple):
    """Seconds that a watch is asked for, drawn anew each time so that replicas spread, and that its end may be late.

    A dead connection is noticed then, and what changed meanwhile is seen late: client-go's five to ten minutes are
    long for who may pass.
    """

    least: int = 120
    most: int = 240
    margin: float = 10.0


class Follower:
    """Keeps ``objects`` as the API server has the collection.

    ``on_change`` is called when they may have changed, ``on_news`` when ``problem`` has.
    """

    def __init__(
        self,
        cluster: Cluster,
        collection: Collection,
        objects: Objects,
        on_change: Callable[[], None],
        on_news: Callable[[], None],
        pace: Pace = Pace(),  # noqa: B008 (frozen)
    ) -> None:
        self._cluster = cluster
        self._collection = collection
        self._objects = objects
        self._on_change = on_change
        self._on_news = on_news
        self._pace = pace
        self._version = VERSIONS[0]
        self._since = ""  # the resource version that is known; empty if a list is wanted
        self._was_open = False
        self._listed_at = 0.0  # when a whole list was last read, in seconds of ``time.monotonic``
        self.problem = UNASKED  # why no watch is open; empty while one is
        self.contact = 0.0  # when the server last said something of use (seconds since the epoch)
        self.lists = self.failures = 0

    async def run(self) -> None:
        """Follow, until cancelled."""
        pause = _FIRST_PAUSE
        while True:
            begun = time.monotonic()
            fault = await self._try()
            # A version that has become too old means waiting no longer, unless it was that of a list just read.
            fresh = begun if fault is None or not fault.is_gone else self._listed_at
            pause = _FIRST_PAUSE if time.monotonic() - fresh >= _LASTING else pause
            asked = 0.0 if fault is None or fault.retry_after is None else min(fault.retry_after, _LONGEST_ASKED)
            await asyncio.sleep(asked + pause * random.uniform(0.5, 1.0))  # noqa: S311 (replicas should not agree)
            pause = min(2 * pause, _LAST_PAUSE)

    async def _try(self) -> ApiError | None:
        """Follow until something is wrong, and give that; None if a watch only did not last."""
        self._was_open = False
        try:
            # Anew each time: with the files of the credentials, and their authorities, as they are by now.
            async with await asyncio.to_thread(connect, self._cluster) as client:
                await self._follow(client)
        except ClusterError as error:
            fault = ApiError(str(error))
        except ApiError as error:
            fault = error
        else:
            return None
        if not fault.again:
            self._since = ""
        if not fault.is_gone:
            self.failures += 1
            if fault.status or not fault.again or not self._was_open:
                # A connection that just ends is no news, unless the next one cannot be had.
                self._say(f"{self._collection}: {fault}" if fault.status else str(fault))
        return fault

    async def _follow(self, client: httpx2.AsyncClient) -> None:
        """List if need be, then watch, again and again. Return early only from a watch that did not last."""
        while True:
            if not self._since:
                await self._list(client)
            begun = time.monotonic()
            await self._watch(client)
            if time.monotonic() - begun < _LASTING:
                return

    async def _list(self, client: httpx2.AsyncClient) -> None:
        found = await listed(client, self._collection)
        self._objects.replace(self._collection, found.texts)
        self._version, self._since = found.version, found.since
        self._listed_at = time.monotonic()
        self.lists += 1
        self._heard()
        self._on_change()

    async def _watch(self, client: httpx2.AsyncClient) -> None:
        seconds = random.randint(self._pace.least, self._pace.most)  # noqa: S311 (spreads, keeps no secret)
        path = self._collection.path(self._version)
        try:
            async with (
                asyncio.timeout(seconds + self._pace.margin),
                watching(client, path, self._since, seconds) as events,
                aclosing(events),
            ):
                self._was_open = True
                self._heard()
                self._say("")
                async for event in events:
                    self._take(event)
        except TimeoutError as error:
            raise ApiError(f"a watch that should have ended after {seconds} s is silent") from error

    def _take(self, event: Event) -> None:
        if event.change is Change.DELETED:
            self._objects.remove(self._collection, self._version, event.object)
        elif event.change is not Change.BOOKMARK:
            self._objects.put(self._collection, self._version, event.object)
        self._since = event.resource_version
        self._heard()
        if event.change is not Change.BOOKMARK:
            self._on_change()

    def _heard(self) -> None:
        self.contact = time.time()

    def _say(self, problem: str) -> None:
        if problem != self.problem:
            self.problem = problem
            self._on_news()
