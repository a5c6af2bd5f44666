"""Searches for cycles in memory: none while policies are read, none among what is in force, and all garbage goes."""

import gc
import sys
from collections.abc import Iterator
from weakref import ref

import pytest
from countersign.edge.collector import exempt, paused, settle, undisturbed

MANY = 100_000  # objects: a search starts at 700


class Cycle:
    """Garbage, as soon as nobody else refers to it, that only a search finds."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    thresholds, interval = gc.get_threshold(), sys.getswitchinterval()
    gc.freeze()  # Python searches everything only once a quarter is new: what other tests left must not count
    gc.collect()
    yield
    gc.set_threshold(*thresholds)
    sys.setswitchinterval(interval)


@pytest.fixture
def searches() -> Iterator[list[str]]:
    """A word for each search that has begun."""
    begun: list[str] = []

    def note(phase: str, _: dict[str, int]) -> None:
        begun.extend([phase] * (phase == "start"))

    gc.callbacks.append(note)
    yield begun
    gc.callbacks.remove(note)


@pytest.fixture
def generations() -> Iterator[set[int]]:
    """What has been searched: 2 is everything."""
    searched: set[int] = set()

    def note(_: str, said: dict[str, int]) -> None:
        searched.add(said["generation"])

    gc.callbacks.append(note)
    yield searched
    gc.callbacks.remove(note)


def make_many() -> list[list[int]]:
    return [[] for _ in range(MANY)]


def is_searched(thing: object) -> bool:
    return any(thing is each for each in gc.get_objects())


def test_nothing_is_searched_while_the_block_runs_and_everything_after(searches: list[str]) -> None:
    with paused():
        made = make_many()
        during = list(searches)
    made += make_many()

    assert during == []
    assert searches


def test_what_an_undisturbed_block_leaves_behind_is_searched_no_more() -> None:
    with undisturbed():
        kept: list[list[int]] = [[]]
    later: list[list[int]] = [[]]

    assert not is_searched(kept)
    assert is_searched(later)


def test_a_process_that_serves_is_not_searched_as_a_whole_for_what_it_remembers(generations: set[int]) -> None:
    remembered = make_many()
    by_default = set(generations)
    settle()
    generations.clear()
    remembered += make_many()

    assert by_default == {0, 1, 2}
    assert generations == {0, 1}


def test_a_process_that_serves_is_searched_as_a_whole_before_a_million_objects_are_garbage(
    generations: set[int],
) -> None:
    settle()
    kept = [make_many() for _ in range(10)]

    assert len(kept) * MANY == 1_000_000
    assert 2 in generations


def test_garbage_of_a_process_that_serves_is_found_soon() -> None:
    settle()
    garbage = ref(Cycle())
    make_many()

    assert garbage() is None


def test_what_was_garbage_before_an_undisturbed_block_is_gone() -> None:
    garbage = ref(Cycle())

    with undisturbed():
        assert garbage() is None


def test_a_block_that_raises_leaves_nothing_exempt_and_searches_go_on() -> None:
    kept: list[list[int]] = [[]]

    with pytest.raises(ValueError, match="broken"), undisturbed():
        raise ValueError("broken")

    assert is_searched(kept)
    assert gc.isenabled()


def test_what_is_exempt_is_freed_as_soon_as_nobody_refers_to_it() -> None:
    kept = Cycle()
    exempt()
    dropped = ref(kept)
    del kept.itself, kept

    assert dropped() is None
