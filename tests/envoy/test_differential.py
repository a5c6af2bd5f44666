"""The real Envoy is the judge: the same policies as its own filters and behind ext_authz, the same requests to both.

A few hundred pairs; `make differential` plays fifty thousand. A failure prints the case: policies, request, answers.
"""

import pytest

from tests.envoy.judge.batch import Score, play
from tests.envoy.judge.report import render

pytestmark = pytest.mark.envoy

PAIRS = 800
SETS = 80


@pytest.fixture(scope="module")
def score() -> Score:
    return play("make test", SETS, PAIRS)


@pytest.mark.parametrize("posture", ["istio", "strict"])
def test_countersign_answers_as_envoy_does(score: Score, posture: str) -> None:
    found = [render(each) for each in score.disagreements if each.posture == posture]

    assert score.pairs == PAIRS
    assert not found, "\n".join(found)


def test_the_trial_is_worth_something(score: Score) -> None:
    """Both answers are common, and Envoy refuses for many reasons."""
    assert 0.2 < score.share_allowed < 0.8
    assert len({status for status, _ in score.statuses}) >= 3
    assert sum(body.startswith("Jw") for _, body in score.statuses) >= 10
