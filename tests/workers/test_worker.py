"""What a worker decides by while new policies are on their way into force."""

import asyncio
import logging
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path

from countersign.core.jwt_rule import RemoteKeys
from countersign.edge.addresses import TcpAddress, UnixAddress
from countersign.edge.transport import Transport
from countersign.in_force import Policies
from countersign.policy.parse import parse
from countersign.settings import Settings
from countersign.snapshot import Mesh
from countersign.workers.messages import Failed, Keys, Logs, Start, loaded, packed
from countersign.workers.worker import _Worker

from tests.edge.serving import READERS, TIMEOUT
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


def test_the_last_word_of_a_worker_that_cannot_begin_is_heard_whatever_it_has_not_read() -> None:
    """Who closes with something unread resets the connection, and asyncio gives nothing of what came before."""
    start = _start()
    cannot = replace(
        start.settings, listen=(TcpAddress("0.0.0.0", 9),), transport=Transport.NATIVE, insecure_listen=True
    )
    unread = packed(b"x" * 4 * 1024 * 1024)  # more than the worker reads ahead, and than the connection takes
    ours, theirs = socket.socketpair()
    ours.settimeout(TIMEOUT)
    with (
        ours,
        theirs,
        subprocess.Popen(
            [sys.executable, "-P", "-m", "countersign.workers", str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
        ) as child,
    ):
        theirs.close()
        telling = threading.Thread(target=ours.sendall, args=(packed(replace(start, settings=cannot)) + unread,))
        telling.start()
        said = b"".join(iter(partial(ours.recv, 65536), b""))
        telling.join()
        ours.shutdown(socket.SHUT_WR)
        assert child.wait(TIMEOUT) == 1

    why = (
        "--transport native cannot serve 0.0.0.0:9: pygrpc-native is for a unix socket or loopback; say auto or grpcio"
    )
    assert said == packed(Failed(why=why, usage=True))


def _start() -> Start:
    settings = Settings(
        listen=(UnixAddress("/nowhere/authz.sock"),),
        insecure_listen=False,
        policies=(Path("/nowhere"),),
        probes=TcpAddress("127.0.0.1", 0),
        mesh=Mesh(),
    )
    return Start(settings=settings, logs=Logs(level=logging.getLevelName(logging.INFO), format="%(message)s"))
