"""A worker asks for a missed key once, whoever misses it, and rests after a refusal."""

import asyncio
import time

from countersign.core.jwt_rule import FetchedKeys, RemoteKeys
from countersign.workers.misses import REST, Misses

SOURCE, OTHER = RemoteKeys("https://issuer.test/jwks"), RemoteKeys("https://other.test/jwks")


def test_whoever_misses_a_key_waits_for_the_same_answer() -> None:
    async def play() -> list[FetchedKeys]:
        asked: list[FetchedKeys] = []
        misses = Misses(asked.append)
        first, second, other = misses.refresh(SOURCE), misses.refresh(SOURCE), misses.refresh(OTHER)
        assert first is not None
        assert second is first
        assert other is not None
        misses.landed(SOURCE, refused=False)
        assert first.done()
        assert not other.done()
        assert misses.refresh(SOURCE) is not None  # the next one asks anew
        return asked

    assert asyncio.run(play()) == [SOURCE, OTHER, SOURCE]


def test_after_a_refusal_nobody_asks_for_a_moment() -> None:
    async def play() -> list[FetchedKeys]:
        asked: list[FetchedKeys] = []
        misses = Misses(asked.append)
        waiting = misses.refresh(SOURCE)
        begun = time.monotonic()
        misses.landed(SOURCE, refused=True)
        assert waiting is not None
        assert waiting.done()
        assert misses.refresh(SOURCE) is None
        while misses.refresh(SOURCE) is None:  # noqa: ASYNC110 (the passing of time is no event)
            await asyncio.sleep(REST / 10)
        assert time.monotonic() - begun >= REST
        return asked

    assert asyncio.run(play()) == [SOURCE, SOURCE]
