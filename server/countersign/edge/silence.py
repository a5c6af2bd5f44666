"""The end of a server, where callers that health checks have told to go need a moment to go.

A call that comes after a server has stopped taking calls is lost, and Envoy hears of NOT_SERVING only with its next
health check. So whoever still calls is answered, and the end waits until who asks for health has asked once more, and
nobody calls.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

QUIET: Final = 0.1  # seconds without a call: whoever knows of the end has gone
LAST_CALLS: Final = 2.0  # seconds that others may take to go; two intervals of the health checks in `envoy/`
_LOOK: Final = 0.01  # seconds between two looks at whether they have


class Heard:
    """When the last check and the last question for health came, on the clock of ``time.monotonic``."""

    __slots__ = ("call", "health")

    def __init__(self) -> None:
        self.call = self.health = float("-inf")


async def silence(heard: Heard, busy: Callable[[], bool], grace: float) -> None:
    """Return when nobody has called for `QUIET` seconds and none who asks for health has yet to hear of the end.

    `LAST_CALLS` is the most that takes. Where ``busy`` says that something is under way, that is waited for as well.
    At most ``grace`` seconds in all.
    """
    begun = now = time.monotonic()
    asked = heard.health > begun - LAST_CALLS
    while now - begun < grace:
        told = not asked or heard.health > begun
        last = now - begun >= LAST_CALLS or (told and now - heard.call >= QUIET)
        if last and not busy():
            return
        await asyncio.sleep(_LOOK)  # silence is no event
        now = time.monotonic()
