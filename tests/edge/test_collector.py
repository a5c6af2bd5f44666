"""Searches for cycles in memory: none while policies are read, none among what is in force, and all garbage goes."""

import gc
from collections.abc import Iterator
from weakref import ref

import pytest
from countersign.edge.collector import exempt, paused, undisturbed

MANY = 100_000  # objects: a search starts at 700


class Cycle:
    """Garbage, as soon as nobody else refers to it, that only a search finds."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    gc.unfreeze()


@pytest.fixture
def searches() -> Iterator[list[str]]:
    """A word for each search that has begun."""
    begun: list[str] = []

    def note(phase: str, _: dict[str, int]) -> None:
        begun.extend([phase] * (phase == "start"))

    gc.callbacks.append(note)
    yield begun
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
