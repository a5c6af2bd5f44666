"""Keys rotate and tokens have made-up key IDs while 300 good requests a second go through the real Envoy.

Counts only, and a few seconds of each: `make storm` plays it longer and measures the latencies too.
"""

import asyncio
from collections.abc import Iterator, Sequence

import pytest

from tests.envoy.storm import RATE, Sample, Storm, flood, rotation, statuses, storm

pytestmark = pytest.mark.envoy

SECONDS = 3.0
MADE_UP = 600


@pytest.fixture(scope="module")
def running() -> Iterator[Storm]:
    with storm("overlap", "sudden", "flooded") as parts:
        yield parts


def test_a_rotation_with_overlap_refuses_no_good_token(running: Storm) -> None:
    before = running.issuers["overlap"].fetches
    samples, caught = asyncio.run(rotation(running, "overlap", SECONDS, keep_old=True))

    assert not caught
    assert _good(samples, int(SECONDS * RATE))
    assert running.issuers["overlap"].fetches == before + 1


def test_a_rotation_without_overlap_refuses_no_good_token(running: Storm) -> None:
    before = running.issuers["sudden"].fetches
    samples, caught = asyncio.run(rotation(running, "sudden", SECONDS, keep_old=False))

    assert _good(samples, int(SECONDS * RATE) - len(caught))
    assert len(caught) < 0.1 * SECONDS * RATE
    assert running.issuers["sudden"].fetches == before + 1


def test_made_up_key_ids_bring_one_fetch_and_refuse_no_good_token(running: Storm) -> None:
    before = running.issuers["flooded"].fetches
    good, bad = asyncio.run(flood(running, "flooded", SECONDS, MADE_UP))

    assert _good(good, int(SECONDS * RATE))
    assert bad.get(401, 0) > 0.9 * MADE_UP
    assert 200 not in bad
    assert running.issuers["flooded"].fetches == before + 1  # the cooldown is longer than this takes


def _good(samples: Sequence[Sample], count: int) -> bool:
    """Whether none is refused; on a machine that is busy with other things, a few may be answered too late."""
    return 401 not in statuses(samples) and statuses(samples)[200] > 0.9 * count and len(samples) == count
