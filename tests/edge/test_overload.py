"""More checks than can be answered: the surplus is denied at once and in so many words (requirements A06 to A08)."""

import asyncio
import threading
import time
from pathlib import Path
from typing import Any, NoReturn

import pytest
from countersign.edge import check
from countersign.edge.addresses import UnixAddress
from countersign.edge.check import BUDGET, OVERLOADED, Checker
from countersign.edge.metadata import Metadata
from countersign.edge.native_server import NativeServer
from countersign.mesh.issuer import Issuer
from countersign.snapshot import Snapshot
from countersign.wire import auth_pb2 as pb

from tests.edge.frames import CALL, DATA, END_HEADERS, END_STREAM, HEADERS, Peer, frame, message
from tests.edge.serving import TIMEOUT, Answering, reason, request, snapshot
from tests.edge.test_check import ISSUER, REMOTE, WITH_TOKENS, bearer

DONE = b"so be it"


def test_the_denial_of_the_surplus_is_explicit_and_says_when_to_come_back() -> None:
    response = pb.CheckResponse.FromString(OVERLOADED.octets)

    assert response.status.code == 7
    assert response.denied_response.status.code == 503
    assert response.denied_response.body == "authorization unavailable"
    assert [(line.header.key, line.header.value) for line in response.denied_response.headers] == [("retry-after", "1")]
    assert reason(response) == "server-overloaded"


def test_whoever_is_one_too_many_is_denied_and_the_others_are_answered_and_then_all_are(tmp_path: Path) -> None:
    """The thread of the checks is held by the first while the others arrive."""
    address = UnixAddress(str(tmp_path / "a.sock"))
    busy, go, answered = threading.Event(), threading.Event(), []

    def answer(payload: bytes, _: float | None) -> bytes:
        answered.append(payload)
        busy.set()
        assert go.wait(TIMEOUT)
        # The work: without any, those behind would find room before they have all arrived. It sleeps not, for whoever
        # wakes up has to wait for Python's lock.
        done = time.perf_counter() + 0.0003
        while time.perf_counter() < done:
            pass
        return DONE

    def crowd() -> tuple[int, int]:
        with Peer(address) as peer:
            peer.send(_calls(0, 1))
            assert busy.wait(TIMEOUT)
            peer.send(_calls(1, 900))
            for _ in range(5):  # it has read all of it, and has had several turns to pass it on
                peer.ping()
            go.set()
            end = time.monotonic() + TIMEOUT
            while peer.received.count(DONE) + peer.received.count(OVERLOADED.octets) < 900:
                assert time.monotonic() < end
                peer.ping()
            counts = peer.received.count(DONE), peer.received.count(OVERLOADED.octets)
            peer.send(_calls(900, 901))
            peer.wait_for(DONE, times=counts[0] + 1)
            return counts

    async def scenario() -> tuple[int, int]:
        server = NativeServer(Answering(answer), address)
        await server.start()
        try:
            return await asyncio.to_thread(crowd)
        finally:
            go.set()
            await server.drain(0)

    done, denied = asyncio.run(scenario())
    assert done + denied == 900
    assert 2 <= done < 900
    assert len(answered) == done + 1


def test_whoever_is_one_too_many_hears_so_before_the_next_check_is_answered(tmp_path: Path) -> None:
    address = UnixAddress(str(tmp_path / "a.sock"))
    too_many, told = threading.Event(), threading.Event()
    waited: list[bool] = []

    class Shedding(Answering):
        def shed(self, _: bytes, __: Metadata = ()) -> bytes:
            too_many.set()
            return super().shed(_, __)

    def answer(_payload: bytes, _: float | None) -> bytes:
        if too_many.is_set() and not waited:
            waited.append(told.wait(TIMEOUT))
        done = time.perf_counter() + 0.0003
        while time.perf_counter() < done:
            pass
        return DONE

    def crowd() -> None:
        with Peer(address) as peer:
            peer.send(_calls(0, 1000))
            peer.wait_for(OVERLOADED.octets)
            told.set()
            peer.wait_for(DONE)

    async def scenario() -> None:
        server = NativeServer(Shedding(answer), address)
        await server.start()
        try:
            await asyncio.to_thread(crowd)
        finally:
            told.set()
            await server.drain(0)

    asyncio.run(scenario())
    assert waited == [True]


def test_an_answer_waits_for_no_more_than_seven_others_before_it_is_sent(tmp_path: Path) -> None:
    address = UnixAddress(str(tmp_path / "a.sock"))
    busy, go, told = threading.Event(), threading.Event(), threading.Event()
    waits = {0: go, 20: told}
    answered: list[bool] = []

    def answer(_payload: bytes, _: float | None) -> bytes:
        busy.set()
        answered.append(len(answered) not in waits or waits[len(answered)].wait(TIMEOUT))
        return DONE

    def crowd() -> None:
        with Peer(address) as peer:
            peer.send(_calls(0, 1))
            assert busy.wait(TIMEOUT)
            peer.send(_calls(1, 40))
            for _ in range(5):  # it has read all of it, and has had several turns to pass it on
                peer.ping()
            go.set()
            peer.wait_for(DONE, times=13)  # of the 20 before the one that waits
            told.set()
            peer.wait_for(DONE, times=40)

    async def scenario() -> None:
        server = NativeServer(Answering(answer), address)
        await server.start()
        try:
            await asyncio.to_thread(crowd)
        finally:
            go.set()
            told.set()
            await server.drain(0)

    asyncio.run(scenario())
    assert answered == [True] * 40


def _calls(first: int, last: int) -> bytes:
    return b"".join(
        frame(HEADERS, END_HEADERS, 2 * number + 1, CALL) + frame(DATA, END_STREAM, 2 * number + 1, message(b""))
        for number in range(first, last)
    )


def _fail(error: Exception) -> NoReturn:
    raise error


def _decided(answer: Any) -> str:
    assert isinstance(answer, bytes)
    return reason(pb.CheckResponse.FromString(answer))


def test_nothing_is_done_for_a_check_whose_deadline_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    current = snapshot()
    checker = Checker(lambda: current, lambda _: None, _fail)
    payload = request().SerializeToString()
    assert _decided(checker.answer(payload, 1.0)) == "allow-rule-matched"

    def never(_: bytes) -> NoReturn:
        raise AssertionError("it was looked at")

    monkeypatch.setattr(check, "decode", never)
    for remaining in (-1.0, 0.0, 0.019):
        assert _decided(checker.answer(payload, remaining)) == "deadline-passed"


def test_no_more_checks_are_held_than_there_is_room_for_and_whoever_leaves_makes_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(check, "MAX_HELD", 2)
    keyless: Snapshot = snapshot(WITH_TOKENS)

    async def scenario() -> None:
        asked: list[object] = []

        def refresh(source: object) -> asyncio.Future[None]:
            asked.append(source)
            return asyncio.get_running_loop().create_future()

        checker = Checker(lambda: keyless, refresh, _fail)
        payload = bearer(Issuer(ISSUER)).SerializeToString()
        held = [checker.answer(payload, None) for _ in range(2)]
        assert not any(isinstance(each, bytes) for each in held)
        assert _decided(checker.answer(payload, None)) == "keys-unavailable"
        assert asked == []  # who is not held brings no fetch either

        held.pop()  # its caller has gone
        another = checker.answer(payload, None)
        assert not isinstance(another, bytes)
        assert _decided(checker.answer(payload, None)) == "keys-unavailable"
        begun = asyncio.get_running_loop().time()
        assert _decided(await another()) == "keys-unavailable"
        assert asyncio.get_running_loop().time() - begun >= BUDGET * 0.9
        assert asked == [REMOTE]

    asyncio.run(scenario())
