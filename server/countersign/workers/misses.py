"""Missed keys of one worker: it asks the supervisor, which alone fetches and knows when a fetch is permitted."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

from countersign.core.jwt_rule import FetchedKeys

REST: Final = 0.05  # seconds after a refusal: a flood of made-up keys asks the supervisor 20 times a second at most


class Misses:
    """One question at a time about one source, whoever asks. Everything happens on one event loop."""

    def __init__(self, ask: Callable[[FetchedKeys], None]) -> None:
        self._ask = ask
        self._asked: dict[FetchedKeys, asyncio.Future[None]] = {}
        self._refused: dict[FetchedKeys, float] = {}

    def refresh(self, source: FetchedKeys) -> asyncio.Future[None] | None:
        """A future that is done when there is nothing to wait for any more; None if that is so already."""
        if time.monotonic() - self._refused.get(source, -REST) < REST:
            return None
        asked = self._asked.get(source)
        if asked is None:
            asked = self._asked[source] = asyncio.get_running_loop().create_future()
            self._ask(source)
        return asked

    def landed(self, source: FetchedKeys, *, refused: bool) -> None:
        """The supervisor has answered."""
        self._refused.pop(source, None)
        if refused:
            self._refused[source] = time.monotonic()
        asked = self._asked.pop(source, None)
        if asked is not None and not asked.done():
            asked.set_result(None)
