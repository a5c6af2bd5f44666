"""The queue of checks that wait for their turn."""

import pytest
from countersign.edge.waiting import FEW, MAX_BYTES, MAX_CALLS, MAX_WAIT, Queue, Waiting


def waiting(call: int, payload: bytes = b"", since: float = 0.0) -> Waiting:
    return Waiting(call, payload, None, since)


def test_first_come_is_first_served() -> None:
    queue = Queue()
    for call in (3, 1, 2):
        assert queue.offer(waiting(call))

    assert [queue.take().call for _ in range(len(queue))] == [3, 1, 2]
    with pytest.raises(KeyError):
        queue.take()


def test_one_call_too_many_is_not_taken_and_the_next_is_once_there_is_room() -> None:
    queue = Queue()
    assert all(queue.offer(waiting(call)) for call in range(MAX_CALLS))

    assert not queue.offer(waiting(MAX_CALLS))
    assert len(queue) == MAX_CALLS
    queue.take()
    assert queue.offer(waiting(MAX_CALLS))


def test_who_finds_many_of_whom_the_first_has_waited_too_long_is_not_taken_and_the_next_is_when_that_has_gone() -> None:
    queue = Queue()
    late = 10.001 + MAX_WAIT
    assert queue.offer(waiting(0, since=10.0))
    assert all(queue.offer(waiting(call, since=10.0 + MAX_WAIT / 2)) for call in range(1, FEW))

    assert not queue.offer(waiting(FEW, since=late))
    assert queue.take().call == 0
    assert queue.offer(waiting(FEW, since=late))


def test_a_few_are_taken_however_long_they_have_waited() -> None:
    """Whatever held them up has not been checks, and they are soon answered."""
    queue = Queue()
    assert all(queue.offer(waiting(call, since=10.0 + call)) for call in range(FEW))
    assert not queue.offer(waiting(FEW, since=1000.0))


def test_one_byte_too_many_is_not_taken_and_fits_once_there_is_room() -> None:
    queue = Queue()
    half = bytes(MAX_BYTES // 2)
    assert queue.offer(waiting(1, half))
    assert queue.offer(waiting(2, half))

    assert not queue.offer(waiting(3, b"x"))
    queue.take()
    assert queue.offer(waiting(3, b"x"))
    queue.leave(2)
    assert queue.offer(waiting(4, half))


def test_whoever_leaves_early_is_not_served_and_makes_room_once() -> None:
    queue = Queue()
    for call in range(MAX_CALLS):
        queue.offer(waiting(call))

    queue.leave(0)
    queue.leave(0)
    queue.leave(-1)
    assert queue.offer(waiting(MAX_CALLS))
    assert not queue.offer(waiting(MAX_CALLS + 1))
    assert queue.take().call == 1
