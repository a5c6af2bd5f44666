"""What callers see of restarts, reloads and crashes, at a small size; `make lifecycle` is the full one."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.envoy.lifecycle import TRANSPORTS, Seen, crashes, outcomes, reloads, restarts

pytestmark = pytest.mark.envoy

EITHER = pytest.mark.parametrize("transport", TRANSPORTS)
SHAPES = pytest.mark.parametrize("flags", [(), ("--workers", "2")], ids=["one", "workers"])
RIGHT = (("/good", 200), ("/bad", 403))
ABSENT = (("/good", 503), ("/bad", 503))


def others(seen: Seen, expected: Iterable[tuple[str, int]]) -> dict[tuple[str, int], int]:
    """Outcomes that are none of those."""
    return {each: count for each, count in outcomes(seen).items() if each not in expected}


@EITHER
def test_no_caller_notices_rolling_restarts(tmp_path: Path, transport: str) -> None:
    seen = restarts(tmp_path, transport, 200, 3)

    assert others(seen, RIGHT) == {}
    assert min(outcomes(seen)[each] for each in RIGHT) > 200


@SHAPES
@EITHER
def test_every_answer_beside_reloads_is_that_of_one_generation(
    tmp_path: Path, transport: str, flags: tuple[str, ...]
) -> None:
    seen, mixed = reloads(tmp_path, transport, 200, 30, *flags)

    assert mixed == []
    kinds = {(answer.path, answer.status) for answer in seen.parsed()}
    assert kinds == {(f"/{name}", status) for name in ("odd", "even") for status in (200, 403)} | {
        (f"/token-{name}", status) for name in ("odd", "even") for status in (200, 401)
    }


@SHAPES
@EITHER
def test_while_nobody_answers_nothing_is_allowed_and_all_is_well_afterwards(
    tmp_path: Path, transport: str, flags: tuple[str, ...]
) -> None:
    seen = crashes(tmp_path, transport, 200, 1, *flags)

    assert others(seen, RIGHT + ABSENT) == {}
    assert all(outcomes(seen)[each] > 0 for each in RIGHT + ABSENT)
