"""What holds for both transports: health, addresses, draining, limits, deadlines."""

import asyncio
import multiprocessing
import os
import socket
import stat
import threading
from collections.abc import Awaitable, Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest
from countersign.core.decision import Allow, AllowReason, Mutations
from countersign.edge import grpc_core
from countersign.edge.addresses import Address, TcpAddress, UnixAddress
from countersign.edge.server import MAX_RECEIVE, Held, Server
from countersign.edge.silence import LAST_CALLS, QUIET
from countersign.edge.transport import Transport
from countersign.wire.codec import METHOD, SERVICE, encode
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.cli.serving import free_port
from tests.edge.frames import CALL, DATA, END_HEADERS, END_STREAM, HEADERS, Peer, call, frame, message
from tests.edge.serving import TIMEOUT, Answering, health, server_on

YES = encode(Allow(reason=AllowReason.NO_ALLOW_POLICY, policy=None, mutations=Mutations(), generation=1))
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN

_T = TypeVar("_T")


def yes(_: bytes, __: float | None) -> bytes:
    return YES


def serve(
    transport: Transport,
    answer: Callable[[bytes, float | None], bytes | Held],
    address: Address,
    scenario: Callable[[Server, Any], Awaitable[_T]],
) -> _T:
    """Run a scenario with a server and a channel to it."""

    async def run() -> _T:
        server = server_on(transport, Answering(answer), [address])
        try:
            await server.start()
            async with grpc.aio.insecure_channel(str(address)) as channel:
                return await scenario(server, channel)
        finally:
            await server.drain(0)

    return asyncio.run(run())


@pytest.fixture
def address(tmp_path: Path) -> UnixAddress:
    return UnixAddress(str(tmp_path / "a.sock"))


async def check(channel: Any, payload: bytes = b"", within: float = TIMEOUT) -> bytes:
    answer: bytes = await channel.unary_unary(METHOD, bytes, bytes)(payload, timeout=within)
    return answer


async def status(awaitable: Awaitable[Any]) -> str:
    """The gRPC status that a call ends with."""
    try:
        await awaitable
    except grpc.aio.AioRpcError as error:
        return str(error.code().name)
    return "OK"


def test_health_follows_what_the_server_is_told(transport: Transport, address: UnixAddress) -> None:
    async def scenario(server: Server, _: Any) -> list[str]:
        said = [await asyncio.to_thread(health, address)]
        await server.set_serving(serving=True)
        said += [await asyncio.to_thread(health, address, name) for name in ("", SERVICE)]
        await server.set_serving(serving=False)
        said += [await asyncio.to_thread(health, address, name) for name in ("", SERVICE)]
        return said

    assert serve(transport, yes, address, scenario) == [
        "NOT_SERVING",
        "SERVING",
        "SERVING",
        "NOT_SERVING",
        "NOT_SERVING",
    ]


def test_the_health_of_a_service_that_is_not_here_is_not_found(transport: Transport, address: UnixAddress) -> None:
    async def scenario(_: Server, channel: Any) -> str:
        stub = health_pb2_grpc.HealthStub(channel)
        return await status(stub.Check(health_pb2.HealthCheckRequest(service="other"), timeout=TIMEOUT))

    assert serve(transport, yes, address, scenario) == "NOT_FOUND"


def test_a_health_request_that_does_not_parse_is_an_error_of_that_call_alone(
    transport: Transport, address: UnixAddress
) -> None:
    async def scenario(_: Server, channel: Any) -> tuple[str, bytes]:
        garbled = channel.unary_unary("/grpc.health.v1.Health/Check", bytes, bytes)(b"\xff", timeout=TIMEOUT)
        return await status(garbled), await check(channel)

    refused, answer = serve(transport, yes, address, scenario)
    assert refused in {"INTERNAL", "UNKNOWN"}  # grpc.aio says the second
    assert answer == YES


def test_whoever_watches_health_is_told_of_every_change_and_of_the_end(
    transport: Transport, address: UnixAddress
) -> None:
    async def scenario(server: Server, channel: Any) -> list[int]:
        stub = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=SERVICE), timeout=TIMEOUT)
        said = [(await watch.read()).status]
        for serving in (True, False, True):
            await server.set_serving(serving=serving)
            said.append((await watch.read()).status)
        draining = asyncio.create_task(server.drain(1))
        said.append((await watch.read()).status)
        await server.set_serving(serving=True)  # too late to be believed
        watch.cancel()
        await draining
        return said

    assert serve(transport, yes, address, scenario) == [NOT_SERVING, SERVING, NOT_SERVING, SERVING, NOT_SERVING]


def test_a_watch_of_a_service_that_is_not_here_says_so_and_stays_open(
    transport: Transport, address: UnixAddress
) -> None:
    async def scenario(_: Server, channel: Any) -> tuple[int, bool]:
        stub = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(service="other"), timeout=TIMEOUT)
        said = (await watch.read()).status
        return said, watch.done()

    assert serve(transport, yes, address, scenario) == (SERVICE_UNKNOWN, False)


def test_the_socket_is_closed_to_others_and_gone_after_draining(transport: Transport, address: UnixAddress) -> None:
    async def scenario(server: Server, _: Any) -> int:
        mode = stat.S_IMODE(os.stat(address.path).st_mode)  # noqa: PTH116 (one look at a file)
        await server.drain(0)
        return mode

    assert serve(transport, yes, address, scenario) == 0o660
    assert not Path(address.path).exists()


def test_a_socket_that_another_process_serves_is_left_to_it(transport: Transport, address: UnixAddress) -> None:
    async def scenario(_: Server, channel: Any) -> bytes:
        second = server_on(transport, Answering(yes), [address])
        with pytest.raises(FileExistsError, match="another process serves"):
            await second.start()
        await second.drain(0)
        return await check(channel)

    assert serve(transport, yes, address, scenario) == YES


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_a_port_of_loopback_is_served(transport: Transport, host: str) -> None:
    async def scenario(_: Server, channel: Any) -> bytes:
        return await check(channel)

    assert serve(transport, yes, TcpAddress(host, free_port()), scenario) == YES


def test_a_port_that_is_taken_is_an_error_that_names_it(transport: Transport) -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = TcpAddress("127.0.0.1", taken.getsockname()[1])

        async def scenario(_: Server, __: Any) -> None:
            raise AssertionError

        with pytest.raises(OSError, match=f"cannot listen on {address}"):
            serve(transport, yes, address, scenario)


class Gate:
    """Answers that are held until the test lets them go."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.go = asyncio.Event()
        self.ended: list[str] = []

    def answer(self, payload: bytes, _: float | None) -> bytes | Held:
        return YES if payload == b"at once" else self._held

    async def _held(self) -> bytes:
        self.begun.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise
        self.ended.append("answered")
        return YES


def test_a_held_check_keeps_no_other_from_its_answer(transport: Transport, address: UnixAddress) -> None:
    gate = Gate()

    async def scenario(_: Server, channel: Any) -> list[bytes]:
        held = [asyncio.create_task(check(channel, b"held")) for _ in range(50)]
        await gate.begun.wait()
        others = [await check(channel, b"at once") for _ in range(50)]
        assert not any(call.done() for call in held)
        gate.go.set()
        return others + await asyncio.gather(*held)

    assert serve(transport, gate.answer, address, scenario) == [YES] * 100


def test_a_held_check_whose_caller_goes_away_is_given_up(transport: Transport, address: UnixAddress) -> None:
    gate = Gate()

    async def scenario(_: Server, channel: Any) -> list[str]:
        call = channel.unary_unary(METHOD, bytes, bytes)(b"held", timeout=TIMEOUT)
        await gate.begun.wait()
        call.cancel()
        async with asyncio.timeout(TIMEOUT):
            while not gate.ended:
                await check(channel, b"at once")
        return gate.ended

    assert serve(transport, gate.answer, address, scenario) == ["cancelled"]


def test_a_check_beyond_its_deadline_ends_for_the_caller_and_the_server_goes_on(
    transport: Transport, address: UnixAddress
) -> None:
    gate = Gate()

    async def scenario(_: Server, channel: Any) -> tuple[str, bytes]:
        return await status(check(channel, b"held", within=0.05)), await check(channel, b"at once")

    assert serve(transport, gate.answer, address, scenario) == ("DEADLINE_EXCEEDED", YES)


def test_the_handler_is_told_how_much_time_is_left(transport: Transport, address: UnixAddress) -> None:
    told: list[float | None] = []

    def answer(_: bytes, remaining: float | None) -> bytes:
        told.append(remaining)
        return YES

    async def scenario(_: Server, channel: Any) -> None:
        await check(channel, within=5)
        await channel.unary_unary(METHOD, bytes, bytes)(b"")

    serve(transport, answer, address, scenario)
    assert told[0] is not None
    assert 4 < told[0] < 5.5
    assert told[1] is None


def test_a_running_check_ends_with_its_answer_while_the_server_drains(
    transport: Transport, address: UnixAddress
) -> None:
    gate = Gate()

    async def scenario(server: Server, channel: Any) -> tuple[bytes, str]:
        call = asyncio.create_task(check(channel, b"held"))
        await gate.begun.wait()
        draining = asyncio.create_task(server.drain(5))
        await asyncio.sleep(0)
        gate.go.set()
        answer = await call
        await draining
        return answer, await status(check(channel, within=1))

    # grpcio cancels what reaches a connection in the moment that it ends
    answer, refused = serve(transport, gate.answer, address, scenario)
    assert answer == YES
    assert refused in {"UNAVAILABLE", "CANCELLED"}


def test_the_end_waits_until_who_asks_for_health_has_heard_of_it(transport: Transport, address: UnixAddress) -> None:
    async def scenario(server: Server, channel: Any) -> tuple[list[bytes], bool, list[int], str]:
        async def asked() -> int:
            stub = health_pb2_grpc.HealthStub(channel)
            return int((await stub.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT)).status)

        await server.set_serving(serving=True)
        said = [await asked()]
        draining = asyncio.create_task(server.drain(5))
        done, _ = await asyncio.wait({draining}, timeout=4 * QUIET)  # silence alone does not end it
        answers = [await check(channel) for _ in range(3)]
        said.append(await asked())
        await asyncio.wait_for(draining, LAST_CALLS / 2)
        return answers, bool(done), said, await status(check(channel, within=1))

    answers, ended, said, refused = serve(transport, yes, address, scenario)
    assert (answers, ended) == ([YES] * 3, False)
    assert said == [SERVING, NOT_SERVING]
    assert refused in {"UNAVAILABLE", "CANCELLED"}


def test_where_nobody_asks_for_health_the_end_waits_for_a_moments_silence(
    transport: Transport, address: UnixAddress
) -> None:
    async def scenario(server: Server, channel: Any) -> list[bytes]:
        answers = [await check(channel)]
        draining = asyncio.create_task(server.drain(5))
        await asyncio.sleep(0)
        answers.append(await check(channel))
        await asyncio.wait_for(draining, LAST_CALLS / 2)
        return answers

    assert serve(transport, yes, address, scenario) == [YES, YES]


def test_who_goes_on_calling_is_left_in_the_end(transport: Transport, address: UnixAddress) -> None:
    async def scenario(server: Server, channel: Any) -> str:
        draining = asyncio.create_task(server.drain(5))
        while (said := await status(check(channel, within=1))) == "OK":
            pass
        await asyncio.wait_for(draining, TIMEOUT)
        return said

    assert serve(transport, yes, address, scenario) in {"UNAVAILABLE", "CANCELLED"}


def test_a_check_that_does_not_end_is_cut_off_when_the_grace_is_over(
    transport: Transport, address: UnixAddress
) -> None:
    gate = Gate()

    async def scenario(server: Server, channel: Any) -> str:
        call = asyncio.create_task(check(channel, b"held"))
        await gate.begun.wait()
        await server.drain(0.05)
        return await status(call)

    assert serve(transport, gate.answer, address, scenario) in {"UNAVAILABLE", "CANCELLED"}


def test_a_server_that_is_drained_twice_or_was_never_started_ends_quietly(
    transport: Transport, address: UnixAddress
) -> None:
    async def scenario(server: Server, _: Any) -> None:
        await server.drain(0)
        await server.drain(0)
        await server.ended()
        await server_on(transport, Answering(yes), [UnixAddress(f"{address.path}.2")]).drain(0)

    serve(transport, yes, address, scenario)


def test_a_message_that_is_too_large_is_refused_and_the_largest_is_not(
    transport: Transport, address: UnixAddress
) -> None:
    sizes: list[int] = []

    def answer(payload: bytes, _: float | None) -> bytes:
        sizes.append(len(payload))
        return YES

    async def scenario(_: Server, channel: Any) -> tuple[str, str, bytes]:
        return (
            await status(check(channel, bytes(MAX_RECEIVE + 1))),
            await status(check(channel, bytes(MAX_RECEIVE))),
            await check(channel),
        )

    assert serve(transport, answer, address, scenario) == ("RESOURCE_EXHAUSTED", "OK", YES)
    assert sizes == [MAX_RECEIVE, 0]


@pytest.mark.parametrize("metadata", [[("x-large-bin", b"\x00" * 30_000)], [("x-large", "v" * 30_000)]])
def test_more_metadata_than_anybody_needs_is_refused(
    transport: Transport, address: UnixAddress, metadata: list[tuple[str, str | bytes]]
) -> None:
    async def scenario(_: Server, channel: Any) -> tuple[str, bytes]:
        call = channel.unary_unary(METHOD, bytes, bytes)(b"", metadata=metadata, timeout=TIMEOUT)
        return await status(call), await check(channel)

    refused, answer = serve(transport, yes, address, scenario)
    assert refused in {"RESOURCE_EXHAUSTED", "UNKNOWN"}  # grpcio's own, and HTTP 431
    assert answer == YES


def test_checks_that_come_at_once_are_each_answered(transport: Transport, address: UnixAddress) -> None:
    threads: set[str] = set()

    def answer(payload: bytes, _: float | None) -> bytes:
        threads.add(threading.current_thread().name)
        return payload

    async def scenario(_: Server, channel: Any) -> list[bytes]:
        return await asyncio.gather(*(check(channel, b"%d" % number) for number in range(400)))

    assert serve(transport, answer, address, scenario) == [b"%d" % number for number in range(400)]
    assert len(threads) == 1  # so that nothing that a check remembers needs a lock


ODD = {
    **{
        f"a timeout of {text!a}": call({"grpc-timeout": text})
        for text in ("-1S", "1", "", "1.5S", "0S", "9" * 12 + "H")
    },
    **{f"a path of {path!a}": call({":path": path}) for path in ("", "/", "/\udcff", f"{METHOD}\udcff", "/a/b")},
    **{f"no {name}": call({name: None}) for name in (":path", ":authority", ":method", "te", "content-type")},
    "an authority of any octets": call({":authority": "\udcff \0"}),
    "metadata of any octets": call({"x-a": "caf\udce9\0\r\n"}),
    "a name of metadata of any octets": call({"x-\udcff": "a"}),
    "binary metadata that is not Base64": call({"x-bin": "!\udcff"}),
    "a method of GET": call({":method": "GET"}),
    "an encoding that nobody knows": call({"grpc-encoding": "brotli"}),
    "a length that is another": call({"content-length": "3"}),
    "no HPACK": b"\xff" * 6,
}
BODIES = {
    "two messages": message(b"") * 2,
    "half a message": message(b"", 3),
    "a flag of 7": b"\x07" + message(b"")[1:],
    "no message": b"",
}


@pytest.mark.parametrize("odd", [*ODD, *BODIES])
def test_no_call_however_odd_ends_the_server(transport: Transport, address: UnixAddress, odd: str) -> None:
    body = BODIES.get(odd, message(b""))

    def ask_oddly() -> None:
        with Peer(address) as peer:
            peer.send(frame(HEADERS, END_HEADERS, 1, ODD.get(odd, CALL)) + frame(DATA, END_STREAM, 1, body))
            with suppress(EOFError, ConnectionResetError):  # the server has had enough of this connection
                for _ in range(3):
                    peer.ping()

    async def scenario(server: Server, channel: Any) -> tuple[bytes, bool]:
        watcher = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        await watcher.read()  # whose call is open: the server cannot end unnoticed
        ended = asyncio.create_task(server.ended())
        await asyncio.to_thread(ask_oddly)
        async with grpc.aio.insecure_channel(str(address)) as another:
            answer = await check(another)
        watcher.cancel()
        still = not ended.done()
        ended.cancel()
        return answer, still

    assert serve(transport, yes, address, scenario) == (YES, True)


class _Broken(grpc_core._Core):
    async def _request_call(self) -> Any:
        await super()._request_call()
        raise RuntimeError("broken on purpose")


def _end_grpcio(address: UnixAddress) -> None:
    async def scenario(server: Server, channel: Any) -> None:
        watcher = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        await watcher.read()
        with suppress(grpc.aio.AioRpcError):
            await channel.unary_unary("/not/here", bytes, bytes)(b"", timeout=TIMEOUT)
        with pytest.raises(RuntimeError, match="broken on purpose"):
            await asyncio.wait_for(server.ended(), TIMEOUT)
        os._exit(0)

    grpc_core._Core = _Broken  # type: ignore[misc]
    serve(Transport.GRPCIO, yes, address, scenario)


def test_whatever_ends_grpcio_is_heard_while_a_call_is_open(address: UnixAddress) -> None:
    """In a process of its own: what such an end leaves in memory ends others."""
    process = multiprocessing.get_context("spawn").Process(target=_end_grpcio, args=(address,))
    process.start()
    process.join(3 * TIMEOUT)
    process.kill()
    assert process.exitcode == 0


def test_a_grpcio_that_refuses_in_another_way_leaves_the_caller_waiting_and_serves_the_others(
    address: UnixAddress, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(_: Server, channel: Any) -> tuple[str, bytes]:
        other = await status(channel.unary_unary("/not/here", bytes, bytes)(b"", timeout=0.2))
        return other, await check(channel)

    assert serve(Transport.GRPCIO, yes, address, scenario) == ("UNIMPLEMENTED", YES)
    monkeypatch.setattr(grpc_core, "_handle_rpc", lambda: None)
    assert serve(Transport.GRPCIO, yes, address, scenario) == ("DEADLINE_EXCEEDED", YES)
    assert "this grpcio is none that is known" in caplog.text
