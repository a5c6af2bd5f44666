"""Names are asked of the system as numbers, forms and failures, and never more of them at a time than is allowed."""

import asyncio
import threading
from ipaddress import ip_address

import pytest
from countersign.edge.keys.access import IpAddress
from countersign.edge.keys.names import AddressError, Names, by_name

from tests.edge.keys.issuing import run, until

LOOPBACK = ip_address("127.0.0.1")


def test_names_are_resolved_by_the_system_and_numbers_read_in_every_form() -> None:
    async def test() -> None:
        assert await by_name("2130706433", 80) == [LOOPBACK]
        assert LOOPBACK in await by_name("localhost", 80)
        with pytest.raises(AddressError, match="cannot be resolved"):
            await by_name("x" * 64, 80)

    run(test)


def test_the_system_is_asked_by_every_event_loop_of_a_process() -> None:
    for _ in range(2):
        assert asyncio.run(by_name("127.0.0.1", 80)) == [LOOPBACK]


def test_who_has_answered_answers_again_and_no_other_thread_is_started() -> None:
    async def test() -> None:
        names = Names(lambda _host, _port: [LOOPBACK])
        before = threading.active_count()
        for _ in range(5):
            assert await names.addresses("a", 80) == [LOOPBACK]
            await until(lambda: names._idle._value == 1)
        assert threading.active_count() == before + 1

    run(test)


def test_others_wait_for_their_turn_and_nobody_is_asked_about_what_nobody_waits_for() -> None:
    asked: list[str] = []
    answered = threading.Event()

    def ask(host: str, _port: int) -> list[IpAddress]:
        asked.append(host)
        answered.wait(10)
        return [LOOPBACK]

    async def test() -> None:
        names = Names(ask, most=2)
        first, second, third, fourth = (asyncio.create_task(names.addresses(host, 80)) for host in "abcd")
        try:
            await until(lambda: len(asked) == 2)
            first.cancel()  # it is under way, and ends when it ends
            third.cancel()
            await asyncio.wait([first, third])
        finally:
            answered.set()

        async with asyncio.timeout(10):
            assert (await second, await fourth) == ([LOOPBACK], [LOOPBACK])
        assert (first.cancelled(), third.cancelled()) == (True, True)
        assert sorted(asked) == ["a", "b", "d"]

    run(test)
