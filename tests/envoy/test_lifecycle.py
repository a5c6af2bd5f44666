"""What callers see of restarts, reloads and crashes, at a small size; `make lifecycle` is the full one."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.envoy.lifecycle import TRANSPORTS, Answer, Seen, crashes, outcomes, reloads, restarts

pytestmark = pytest.mark.envoy

EITHER = pytest.mark.parametrize("transport", TRANSPORTS)
SHAPES = pytest.mark.parametrize("flags", [(), ("--workers", "2")], ids=["one", "workers"])
RIGHT = (("/good", 200), ("/bad", 403))
ABSENT = (("/good", 503), ("/bad", 503))


LATE = "deadline-passed"  # the denial of a check for which a full machine had no time: no fault of what is tested here


def others(seen: Seen, expected: Iterable[tuple[str, int]]) -> list[Answer]:
    """Answers that are none of those."""
    return [each for each in seen.parsed() if (each.path, each.status) not in expected and each.reason != LATE]


@EITHER
def test_no_caller_notices_rolling_restarts(tmp_path: Path, transport: str) -> None:
    seen = restarts(tmp_path, transport, 200, 3)

    assert others(seen, RIGHT) == []
    assert min(outcomes(seen)[each] for each in RIGHT) > 200


@SHAPES
@EITHER
def test_every_answer_beside_reloads_is_that_of_one_generation(
    tmp_path: Path, transport: str, flags: tuple[str, ...]
) -> None:
    seen, mixed = reloads(tmp_path, transport, 200, 30, *flags)

    assert [answer for answer in mixed if answer.reason != LATE] == []
    kinds = {(answer.path, answer.status) for answer in seen.parsed() if answer.reason != LATE}
    assert kinds == {(f"/{name}", status) for name in ("odd", "even") for status in (200, 403)} | {
        (f"/token-{name}", status) for name in ("odd", "even") for status in (200, 401)
    }


@SHAPES
@EITHER
def test_while_nobody_answers_nothing_is_allowed_and_all_is_well_afterwards(
    tmp_path: Path, transport: str, flags: tuple[str, ...]
) -> None:
    seen = crashes(tmp_path, transport, 200, 1, *flags)

    assert others(seen, RIGHT + ABSENT) == []
    assert all(outcomes(seen)[each] > 0 for each in RIGHT + ABSENT)
