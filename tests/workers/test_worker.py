"""What a worker decides by while new policies are on their way into force."""

import asyncio
import logging
import socket
from pathlib import Path

from countersign.core.jwt_rule import RemoteKeys
from countersign.edge.addresses import TcpAddress, UnixAddress
from countersign.in_force import Policies
from countersign.policy.parse import parse
from countersign.settings import Settings
from countersign.snapshot import Mesh
from countersign.workers.messages import Keys, Logs, Start, loaded, packed
from countersign.workers.worker import _Worker

from tests.edge.serving import READERS
from tests.tokens.material import jwk, key_set

OLD, NEW = RemoteKeys("https://old.test/jwks"), RemoteKeys("https://new.test/jwks")


def test_policies_that_are_in_force_keep_their_keys_until_the_next_ones_are() -> None:
    async def play() -> None:
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=theirs)
        worker = _Worker(_start(), reader, writer)
        old, new = key_set(jwk("ES256")), key_set(jwk("EdDSA"))
        resources = parse({"p.yaml": READERS}, None, lambda _: "").resources
        policies = Policies(resources=resources, inline={}, generation=1)
        with ours:
            ours.sendall(packed(Keys(sets={OLD: old})) + loaded(policies) + packed(Keys(sets={NEW: new})))
        await worker._hear()  # to the end, and nothing has put the policies in force meanwhile
        assert worker._in_force.fetched == {OLD: old, NEW: new}
        assert worker._in_force.current().policies is None

        loading = asyncio.create_task(worker._load())
        await asyncio.wait_for(worker._caught_up.wait(), 10)
        assert worker._in_force.fetched == {NEW: new}
        assert worker._in_force.current().policies is not None
        loading.cancel()
        await asyncio.gather(loading, return_exceptions=True)
        writer.close()

    asyncio.run(play())


def test_keys_that_stay_are_the_same_objects_so_that_proofs_by_them_stay() -> None:
    async def play() -> None:
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=theirs)
        worker = _Worker(_start(), reader, writer)
        both = key_set(jwk("ES256"), jwk("EdDSA"))
        worker._keys = {OLD: key_set(jwk("ES256"))}
        worker._take_keys()
        before = worker._in_force.fetched
        with ours:
            ours.sendall(packed(Keys(sets={OLD: both})))
        await worker._hear()
        after = worker._in_force.fetched[OLD]
        assert after == both
        assert after.keys[0] is before[OLD].keys[0]
        writer.close()

    asyncio.run(play())


def _start() -> Start:
    settings = Settings(
        listen=(UnixAddress("/nowhere/authz.sock"),),
        insecure_listen=False,
        policies=(Path("/nowhere"),),
        probes=TcpAddress("127.0.0.1", 0),
        mesh=Mesh(),
    )
    return Start(settings=settings, logs=Logs(level=logging.getLevelName(logging.INFO), format="%(message)s"))
