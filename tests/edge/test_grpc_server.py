"""The gRPC server: health, addresses, draining."""

import asyncio
import socket
import stat
from contextlib import closing
from pathlib import Path

import grpc
import pytest
from countersign.core.decision import Allow, AllowReason, Mutations
from countersign.edge.addresses import TcpAddress, UnixAddress
from countersign.edge.grpc_server import GrpcServer
from countersign.wire.codec import METHOD, SERVICE, encode

from tests.edge.serving import health

YES = encode(Allow(reason=AllowReason.NO_ALLOW_POLICY, policy=None, mutations=Mutations(), generation=1))


async def yes(_: bytes, __: float | None) -> bytes:
    return YES


def test_health_follows_what_the_server_is_told(tmp_path: Path) -> None:
    address = UnixAddress(str(tmp_path / "a.sock"))

    async def scenario() -> list[str]:
        server = GrpcServer(yes, [address])
        await server.start()
        said = [await asyncio.to_thread(health, address)]
        await server.set_serving(serving=True)
        said += [await asyncio.to_thread(health, address, name) for name in ("", SERVICE)]
        await server.set_serving(serving=False)
        said += [await asyncio.to_thread(health, address, name) for name in ("", SERVICE)]
        await server.drain(0)
        return said

    assert asyncio.run(scenario()) == ["NOT_SERVING", "SERVING", "SERVING", "NOT_SERVING", "NOT_SERVING"]


def test_the_socket_is_closed_to_others_and_gone_after_draining(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"

    async def scenario() -> int:
        server = GrpcServer(yes, [UnixAddress(str(path))])
        await server.start()
        mode = stat.S_IMODE(path.stat().st_mode)
        await server.drain(0)
        return mode

    assert asyncio.run(scenario()) == 0o660


def test_a_running_check_ends_with_its_answer_while_the_server_drains(tmp_path: Path) -> None:
    address = UnixAddress(str(tmp_path / "a.sock"))

    async def scenario() -> tuple[bytes, str]:
        begun, go = asyncio.Event(), asyncio.Event()

        async def held(_: bytes, __: float | None) -> bytes:
            begun.set()
            await go.wait()
            return YES

        server = GrpcServer(held, [address])
        await server.start()
        async with grpc.aio.insecure_channel(str(address)) as channel:
            call = channel.unary_unary(METHOD, bytes, bytes)(b"")
            await begun.wait()
            draining = asyncio.create_task(server.drain(5))
            await asyncio.sleep(0)
            go.set()
            answer = await call
            await draining
            refused = ""
            try:
                await channel.unary_unary(METHOD, bytes, bytes)(b"", timeout=1)
            except grpc.aio.AioRpcError as error:
                refused = error.code().name
        return answer, refused

    assert asyncio.run(scenario()) == (YES, "UNAVAILABLE")


def test_a_port_that_is_taken_is_an_error_that_names_it() -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = TcpAddress("127.0.0.1", taken.getsockname()[1])

        async def scenario() -> None:
            server = GrpcServer(yes, [address])
            try:
                await server.start()
            finally:
                await server.drain(0)

        with pytest.raises(OSError, match=f"cannot listen on {address}"):
            asyncio.run(scenario())
