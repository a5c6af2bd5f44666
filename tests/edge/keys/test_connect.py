"""The address that was checked is the one that is connected to."""

import asyncio
from ipaddress import ip_address

import httpcore
import pytest
from countersign.edge.keys.access import Access, IpAddress
from countersign.edge.keys.connect import CheckedBackend
from countersign.edge.keys.names import AddressError
from countersign.edge.keys.stage import Stage

from tests.edge.keys.issuing import answer, deaf, raw, run, until

METADATA = "169.254.169.254"


class Resolver:
    """Answers each question with the next of its answers, as a name that is rebound does."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)

    async def __call__(self, host: str, port: int) -> list[IpAddress]:
        assert (host, port > 0) == ("rebound.test", True)
        return [ip_address(text) for text in self.answers.pop(0)]


def wrong_with(address: IpAddress) -> str:
    return Access().wrong_with(address, plaintext=True)


async def connected(resolver: Resolver, port: int) -> str:
    """The address that was connected to."""
    stream = await CheckedBackend(wrong_with, resolve=resolver).connect_tcp("rebound.test", port)
    found = stream.get_extra_info("server_addr")
    await stream.aclose()
    return str(found[0])


def test_a_name_is_resolved_once_and_cannot_be_rebound_after_the_check() -> None:
    async def test() -> None:
        async with raw(answer()) as server:
            resolver = Resolver(["127.0.0.1"], [METADATA])
            assert await connected(resolver, server.port) == "127.0.0.1"  # nobody else knows that name
            assert resolver.answers == [[METADATA]]
            with pytest.raises(AddressError, match="link-local"):
                await connected(resolver, server.port)

    run(test)


def test_of_several_addresses_only_the_allowed_are_tried_each_in_turn() -> None:
    async def test() -> None:
        async with raw(answer()) as server:
            assert await connected(Resolver([METADATA, "127.0.0.2", "127.0.0.1"]), server.port) == "127.0.0.1"
            with pytest.raises(AddressError, match="link-local"):
                await connected(Resolver([METADATA, "fe80::1"]), server.port)
            with pytest.raises(httpcore.ConnectError):
                await connected(Resolver([METADATA, "127.0.0.2"]), server.port)
            with pytest.raises(AddressError, match="no address"):
                await connected(Resolver([]), server.port)

    run(test)


@pytest.mark.parametrize(("trusted", "name"), [(set[str](), "the host"), ({"slow.test"}, "the proxy")])
def test_a_name_that_nobody_resolves_is_told_from_an_address_that_takes_no_connection(
    trusted: set[str], name: str
) -> None:
    async def test() -> None:
        asked, answered = asyncio.Event(), asyncio.Event()

        async def resolve(_host: str, _port: int) -> list[IpAddress]:
            asked.set()
            await answered.wait()
            return [ip_address("127.0.0.1")]

        async with deaf() as port:
            stage = Stage()
            backend = CheckedBackend(wrong_with, frozenset(trusted), resolve, stage)
            connecting = asyncio.create_task(backend.connect_tcp("slow.test", port))
            await asked.wait()
            assert stage.text == f"resolving the name of {name}"
            answered.set()
            await until(lambda: stage.text == f"connecting to {name}")
            connecting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await connecting

    run(test)


def test_a_trusted_host_may_be_anywhere() -> None:
    async def test() -> None:
        async with raw(answer()) as server:
            backend = CheckedBackend(lambda _: "never", trusted=frozenset({"127.0.0.1"}))
            stream = await backend.connect_tcp("127.0.0.1", server.port)
            await stream.aclose()
            with pytest.raises(AddressError, match="never"):
                await backend.connect_tcp("127.0.0.2", server.port)

    run(test)
