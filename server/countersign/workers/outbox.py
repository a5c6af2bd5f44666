"""What a worker is still to be told: of each kind the latest, so that one that does not listen costs no memory."""

import asyncio
from typing import Final

from countersign.core.jwt_rule import FetchedKeys
from countersign.workers.messages import Landed, packed

POLICIES: Final = 0
KEYS: Final = 1
CERTIFICATES: Final = 2
STANDING: Final = 3


class Outbox:
    """Policies go before keys, keys before the server's certificates, these before the standing.

    All of it goes before the news that a fetch has ended.
    """

    def __init__(self) -> None:
        self._latest: dict[int, bytes] = {}
        self._landed: dict[FetchedKeys, bytes] = {}
        self._filled = asyncio.Event()

    def put(self, rank: int, message: bytes) -> None:
        """Replace what is still there of this rank."""
        self._latest[rank] = message
        self._filled.set()

    def landed(self, source: FetchedKeys, *, refused: bool) -> None:
        """Answer a missed key."""
        self._landed[source] = packed(Landed(source=source, refused=refused))
        self._filled.set()

    async def send(self, writer: asyncio.StreamWriter) -> None:
        """Send whatever comes, until cancelled. Raise OSError when the other end has gone."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            latest, landed = self._latest, self._landed
            self._latest, self._landed = {}, {}
            writer.writelines([*(latest[rank] for rank in sorted(latest)), *landed.values()])
            await writer.drain()
