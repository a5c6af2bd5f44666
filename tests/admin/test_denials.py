"""Denials are kept, the latest of them, and no more of them than fits."""

import pickle
from typing import Final

from countersign.admin.denials import KEPT, Noted, Recent

from tests.record.answering import DENY, SLEEP, answered

LIMIT: Final = 64 * 1024


def test_denials_are_noted_and_what_is_allowed_is_not() -> None:
    noted = Noted()

    noted.observe(answered(number=1))
    noted.observe(answered(number=2, decision=DENY))

    (denial,) = noted.take()
    assert denial.id.endswith("2")
    assert denial.denied == DENY
    assert (denial.step, denial.peer) == ("policies", SLEEP)
    assert noted.take() == ()


def test_a_request_that_is_too_large_is_not_kept_its_denial_is() -> None:
    noted = Noted()

    noted.observe(answered(b"x" * LIMIT, decision=DENY))
    noted.observe(answered(b"x" * (LIMIT + 1), decision=DENY))

    assert [len(denial.payload) for denial in noted.take()] == [LIMIT, 0]


def test_the_latest_are_kept_the_latest_first() -> None:
    noted, recent = Noted(), Recent()

    for number in range(KEPT + 50):
        noted.observe(answered(decision=DENY, number=number, at=float(number)))
    recent.add(noted.take())
    noted.observe(answered(decision=DENY, number=999, at=999.0))
    recent.add(noted.take())

    found = [int(denial.at) for denial in recent.all()]
    assert found == [999, *range(KEPT + 49, 50, -1)]
    assert len(found) == KEPT


def test_a_denial_goes_to_another_process() -> None:
    noted = Noted()
    noted.observe(answered(decision=DENY))

    (denial,) = noted.take()

    assert pickle.loads(pickle.dumps(denial)) == denial  # noqa: S301 (ours)
