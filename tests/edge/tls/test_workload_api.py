"""Certificates from a SPIFFE Workload API, of a small real agent that speaks the published proto."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import pytest
from countersign.certificates.served import Served
from countersign.core.spiffe import SpiffeId
from countersign.edge.addresses import UnixAddress
from countersign.edge.tls.settings import TlsSettings, WorkloadApi
from countersign.edge.tls.source import TlsSource, TlsStanding

from tests.edge.tls.agent import Agent, api, serving, svid
from tests.edge.tls.pki import ALLOWED, SERVER, new_authority, server_of, times
from tests.support.certificates import authority, issue

LIMIT: Final = 10.0
CA = new_authority()
FIRST, SECOND = server_of(CA), server_of(CA)


class Fetched:
    """A source that asks an agent, and everything that it has given."""

    def __init__(self, socket: Path, callers: frozenset[SpiffeId] = ALLOWED) -> None:
        self.given: list[Served] = []
        self.stop = asyncio.Event()
        self._news = asyncio.Event()
        settings = TlsSettings(source=WorkloadApi(UnixAddress(str(socket))), callers=callers)
        self.source = TlsSource(settings, self.given.append, self._news.set)

    async def load(self) -> None:
        """Wait for the first certificate."""
        async with asyncio.timeout(LIMIT):
            await self.source.load(self.stop)

    async def until(self, wish: Callable[[TlsStanding], bool]) -> TlsStanding:
        """Wait until the standing is so."""
        async with asyncio.timeout(LIMIT):
            while not wish(self.source.standing):
                self._news.clear()
                await self._news.wait()
        return self.source.standing


def with_agent(directory: Path, play: Callable[[Agent, Path, Fetched], Awaitable[None]]) -> Fetched:
    """Play with an agent that is not up yet."""

    async def run() -> Fetched:
        socket = directory / "agent.sock"
        fetched = Fetched(socket)
        await play(Agent(), socket, fetched)
        return fetched

    return asyncio.run(run())


async def end(fetched: Fetched, *tasks: "asyncio.Task[None]") -> None:
    fetched.stop.set()
    async with asyncio.timeout(LIMIT):
        await asyncio.gather(*tasks)


def test_the_first_svid_is_served_with_the_bundle_of_its_trust_domain(tmp_path: Path) -> None:
    async def play(agent: Agent, socket: Path, fetched: Fetched) -> None:
        other = issue("spiffe://cluster.local/other", by=CA, **times())
        await agent.give(svid(FIRST, CA), svid(other, CA))
        async with serving(agent, socket):
            await fetched.load()

    (served,) = with_agent(tmp_path, play).given
    assert served.chain == FIRST.pem.encode()
    assert served.authorities == CA.pem.encode()
    assert served.leaf.uris == (SERVER,)


def test_an_intermediate_is_shown_too(tmp_path: Path) -> None:
    middle = authority("Middle CA", by=CA, **times())
    leaf = server_of(middle)

    async def play(agent: Agent, socket: Path, fetched: Fetched) -> None:
        await agent.give(svid(leaf, CA, middle))
        async with serving(agent, socket):
            await fetched.load()

    assert with_agent(tmp_path, play).given[0].chain == (leaf.pem + middle.pem).encode()


def test_what_the_agent_rotates_is_taken_over_the_same_call(tmp_path: Path) -> None:
    async def play(agent: Agent, socket: Path, fetched: Fetched) -> None:
        await agent.give(svid(FIRST, CA))
        async with serving(agent, socket):
            await fetched.load()
            watching = asyncio.create_task(fetched.source.watch())
            await agent.give(svid(SECOND, new_authority("Next CA")))
            await fetched.until(lambda standing: standing.rotations == 1)
            assert agent.calls == 1
            await end(fetched, watching)

    assert [served.chain for served in with_agent(tmp_path, play).given] == [FIRST.pem.encode(), SECOND.pem.encode()]


def test_an_agent_that_is_not_there_or_has_no_identity_yet_is_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def play(agent: Agent, socket: Path, fetched: Fetched) -> None:
        loading = asyncio.create_task(fetched.source.load(fetched.stop))
        await fetched.until(lambda standing: "UNAVAILABLE" in standing.problem)
        async with serving(agent, socket):
            await fetched.until(lambda standing: "PERMISSION_DENIED: no identity issued" in standing.problem)
            await agent.give(svid(FIRST, CA))
            async with asyncio.timeout(LIMIT):
                await loading

    fetched = with_agent(tmp_path, play)
    assert len(fetched.given) == 1
    assert fetched.source.standing.problem == ""
    assert "none is in use yet" in caplog.text


def test_an_agent_that_goes_and_comes_back_costs_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def play(agent: Agent, socket: Path, fetched: Fetched) -> None:
        await agent.give(svid(FIRST, CA))
        async with serving(agent, socket):
            await fetched.load()
            watching = asyncio.create_task(fetched.source.watch())
        lost = await fetched.until(lambda standing: bool(standing.problem))
        assert not lost.check(lost.loaded).fails
        async with serving(agent, socket):
            await fetched.until(lambda standing: not standing.problem)
            assert fetched.source.standing.rotations == 0
            await agent.give(svid(SECOND, CA))
            await fetched.until(lambda standing: standing.rotations == 1)
            await end(fetched, watching)

    assert len(with_agent(tmp_path, play).given) == 2
    assert "stays in use" in caplog.text


def _no_key() -> Any:
    broken = svid(SECOND, CA)
    broken.x509_svid_key = b""
    return broken


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        ([], "an answer without an SVID"),
        ([_no_key()], "the key is no private key"),
        ([svid(issue(dns=["x"], by=CA, **times()), CA)], "the certificate is no SVID: 0 URI SANs"),
        ([svid(server_of(CA, **times(-60, -1)), CA)], "the certificate has expired"),
        ([svid(issue("spiffe://elsewhere/a", by=CA, **times()), CA)], "is of another trust domain than"),
    ],
)
def test_a_broken_answer_leaves_the_old_certificate_in_use(tmp_path: Path, broken: list[Any], why: str) -> None:
    async def play(agent: Agent, socket: Path, fetched: Fetched) -> None:
        await agent.give(svid(FIRST, CA))
        async with serving(agent, socket):
            await fetched.load()
            watching = asyncio.create_task(fetched.source.watch())
            await agent.give(*broken)
            await fetched.until(lambda standing: why in standing.problem)
            await agent.send(b"\xff\xff")
            await fetched.until(lambda standing: "no X509SVIDResponse" in standing.problem)
            await agent.give(svid(SECOND, CA))
            assert (await fetched.until(lambda standing: standing.rotations == 1)).problem == ""
            await end(fetched, watching)

    assert [served.chain for served in with_agent(tmp_path, play).given] == [FIRST.pem.encode(), SECOND.pem.encode()]


def test_a_stop_ends_the_wait_for_an_agent(tmp_path: Path) -> None:
    async def play(_: Agent, __: Path, fetched: Fetched) -> None:
        loading = asyncio.create_task(fetched.source.load(fetched.stop))
        await fetched.until(lambda standing: "UNAVAILABLE" in standing.problem)
        await end(fetched, loading)

    assert with_agent(tmp_path, play).given == []


def test_the_agent_of_these_tests_refuses_whoever_leaves_the_header_out(tmp_path: Path) -> None:
    import grpc  # noqa: PLC0415

    async def run() -> str:
        agent, socket = Agent(), tmp_path / "agent.sock"
        await agent.give(svid(FIRST, CA))
        async with serving(agent, socket), grpc.aio.insecure_channel(f"unix:{socket}") as channel:
            call = channel.unary_stream("/SpiffeWorkloadAPI/FetchX509SVID", bytes, api.X509SVIDResponse.FromString)
            try:
                async for _ in call(b""):
                    return "answered"
            except grpc.aio.AioRpcError as error:
                return error.code().name
        return "ended"

    assert asyncio.run(run()) == "INVALID_ARGUMENT"
