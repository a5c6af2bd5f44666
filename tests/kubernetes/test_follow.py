"""A follower by itself, with watches of a second instead of minutes."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from countersign.edge.kubernetes.address import parse_cluster
from countersign.edge.kubernetes.api import Collection
from countersign.edge.kubernetes.follow import Follower, Pace
from countersign.edge.kubernetes.objects import Objects
from countersign.mesh.process import wait_until

from tests.edge.serving import READERS
from tests.kubernetes.conftest import Cluster
from tests.kubernetes.test_cluster import policy, version_of

COLLECTION = Collection("AuthorizationPolicy", "apps")


class Following:
    """A follower and what it knows."""

    def __init__(self, cluster: Cluster, pace: Pace) -> None:
        self._news = asyncio.Event()
        self.objects = Objects([COLLECTION])
        self.follower = Follower(
            parse_cluster(cluster.url), COLLECTION, self.objects, self._news.set, self._news.set, pace
        )

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not holds():
                await self._news.wait()
                self._news.clear()

    def count(self) -> int:
        return len(self.objects.texts() or ())


def test_a_connection_that_is_dead_without_a_word_is_noticed_and_what_changed_is_not_lost(small: Cluster) -> None:
    small.api.apply(policy(READERS))

    async def follow() -> None:
        following = Following(small, Pace(1, 1, 0.5))
        task = asyncio.create_task(following.follower.run())
        await following.until(lambda: following.count() == 1 and not following.follower.problem)
        small.wire.stall()
        small.api.apply(policy(READERS.replace("name: readers", "name: more")))
        await following.until(lambda: following.count() == 2)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        assert following.follower.lists == 1

    asyncio.run(follow())
    asked = small.api.asked()
    assert "timeoutSeconds=1" in asked[1]
    assert {version_of(each) for each in asked[1:]} == {version_of(asked[1])}


def test_a_watch_that_ends_as_agreed_is_no_fault(small: Cluster) -> None:
    small.api.apply(policy(READERS))

    async def follow() -> None:
        following = Following(small, Pace(1, 1, 5.0))
        task = asyncio.create_task(following.follower.run())
        await following.until(lambda: not following.follower.problem)
        await asyncio.to_thread(wait_until, "more watches", lambda: len(small.api.asked()) >= 4 or None, within=20)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        assert (following.follower.lists, following.follower.failures) == (1, 0)

    asyncio.run(follow())
