"""Several servers as one."""

import asyncio
from collections.abc import Sequence

from countersign.edge.server import Server


class Servers:
    """Serves what each of them serves."""

    def __init__(self, servers: Sequence[Server]) -> None:
        self._servers = servers

    async def start(self) -> None:
        """Start all, or raise the first's OSError."""
        for server in self._servers:
            await server.start()

    async def set_serving(self, *, serving: bool) -> None:
        """Tell the health checks of all."""
        for server in self._servers:
            await server.set_serving(serving=serving)

    async def ended(self) -> None:
        """Return when the first has ended, and raise what ended it."""
        tasks = [asyncio.ensure_future(server.ended()) for server in self._servers]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
        for task in done:
            task.result()

    async def drain(self, grace: float) -> None:
        """Drain all at the same time."""
        await asyncio.gather(*(server.drain(grace) for server in self._servers))
