"""A signal that is held back is neither lost nor early."""

import signal
import threading
from collections.abc import Iterator
from types import FrameType

import pytest
from countersign.mesh.interrupts import ENDINGS, held_back

each_ending = pytest.mark.parametrize("number", ENDINGS)


@pytest.fixture(autouse=True)
def raising() -> Iterator[None]:
    def end(number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt(number)

    before = {number: signal.signal(number, end) for number in ENDINGS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@each_ending
def test_a_signal_arrives_after_the_block(number: signal.Signals) -> None:
    done = []

    def interrupted() -> None:
        with held_back():
            signal.raise_signal(number)
            done.append("the block")

    with pytest.raises(KeyboardInterrupt, match=str(int(number))):
        interrupted()

    assert done == ["the block"]


def test_without_a_signal_nothing_is_different_afterwards() -> None:
    before = [signal.getsignal(number) for number in ENDINGS]
    with held_back():
        pass

    assert [signal.getsignal(number) for number in ENDINGS] == before


@each_ending
def test_an_ignored_signal_stays_ignored(number: signal.Signals) -> None:
    signal.signal(number, signal.SIG_IGN)
    with held_back():
        signal.raise_signal(number)

    assert signal.getsignal(number) is signal.SIG_IGN


def test_the_error_of_the_block_is_not_lost() -> None:
    with pytest.raises(ValueError, match="inside"), held_back():
        raise ValueError("inside")


def test_another_thread_may_use_it() -> None:
    done = []

    def work() -> None:
        with held_back():
            done.append("work")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(10)

    assert done == ["work"]
