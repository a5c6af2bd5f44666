"""What a worker is told, in which order, and how much is kept for one that does not listen."""

import asyncio
import socket
from contextlib import suppress

from countersign.core.jwt_rule import RemoteKeys
from countersign.workers.messages import Keys, Landed, Standing, packed, received
from countersign.workers.outbox import KEYS, STANDING, Outbox

SOURCE = RemoteKeys("https://issuer.test/jwks")


async def _sent(outbox: Outbox, count: int) -> list[object]:
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=theirs)
    _, sender = await asyncio.open_connection(sock=ours)
    sending = asyncio.create_task(outbox.send(sender))
    found = [await received(reader) for _ in range(count)]
    sending.cancel()
    with suppress(asyncio.CancelledError):
        await sending
    sender.close()
    assert await received(reader) is None  # and nothing more
    writer.close()
    return found


def test_keys_come_before_the_standing_and_before_the_news_of_them() -> None:
    async def play() -> list[object]:
        outbox = Outbox()
        outbox.landed(SOURCE, refused=False)
        outbox.put(STANDING, packed(Standing(serving=True)))
        outbox.put(KEYS, packed(Keys(sets={})))
        return await _sent(outbox, 3)

    assert asyncio.run(play()) == [Keys(sets={}), Standing(serving=True), Landed(source=SOURCE, refused=False)]


def test_only_the_latest_of_each_kind_is_kept() -> None:
    async def play() -> list[object]:
        outbox = Outbox()
        for serving in (True, True, False):
            outbox.put(STANDING, packed(Standing(serving=serving)))
        for _ in range(3):
            outbox.landed(SOURCE, refused=True)
        return await _sent(outbox, 2)

    assert asyncio.run(play()) == [Standing(serving=False), Landed(source=SOURCE, refused=True)]
