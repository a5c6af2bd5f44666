"""What the supervisor answers a worker that misses a key."""

import asyncio
from pathlib import Path

import pytest
from countersign.admin.denials import Recent
from countersign.core.jwt_rule import RemoteKeys
from countersign.edge.addresses import TcpAddress, UnixAddress
from countersign.settings import Settings
from countersign.snapshot import Mesh
from countersign.workers.keeper import Keeper
from countersign.workers.messages import Landed, Logs, Missed, Start, packed

SOURCE = RemoteKeys("https://issuer.test/jwks")


@pytest.mark.parametrize("permitted", [True, False])
def test_a_worker_hears_whether_a_fetch_for_its_missed_key_is_permitted(permitted: bool) -> None:
    async def play() -> None:
        fetch = asyncio.get_running_loop().create_future()
        keeper = Keeper("worker 0", _start(), lambda _: fetch if permitted else None, lambda: None, Recent())
        keeper._hear(Missed(source=SOURCE))
        if permitted:
            assert not keeper._outbox._landed  # before the fetch has ended
            fetch.set_result(None)
            await asyncio.sleep(0)
        assert keeper._outbox._landed == {SOURCE: packed(Landed(source=SOURCE, refused=not permitted))}

    asyncio.run(play())


def _start() -> Start:
    settings = Settings(
        listen=(UnixAddress("/nowhere/authz.sock"),),
        insecure_listen=False,
        policies=(Path("/nowhere"),),
        probes=TcpAddress("127.0.0.1", 0),
        mesh=Mesh(),
    )
    return Start(settings=settings, logs=Logs(level="INFO", format="%(message)s"))
