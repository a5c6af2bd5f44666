"""The real Envoy is the judge: the same policies as its own filters and behind ext_authz, the same requests to both.

A few hundred pairs; `make differential` plays fifty thousand. A failure prints the case: policies, request, answers.
"""

import pytest

from tests.envoy.judge import tcp_batch
from tests.envoy.judge.batch import Score, play
from tests.envoy.judge.report import render
from tests.envoy.judge.tcp_batch import TcpScore

pytestmark = pytest.mark.envoy

PAIRS = 1200
SETS = 120
EXPECTED = (
    "header: default", "header: prefix", "header: no prefix", "header: several lines of one name",
    "param: default", "param: own", "cookie", "no token", "tokens: several", "tokens: several of one rule",
    "rules: 1", "rules: 2", "rules: 3", "policies: one", "policies: several",
    "outputPayloadToHeader", "forwardOriginalToken: True", "forwardOriginalToken: False", "spaceDelimitedClaims",
    "presence: missing", "presence: REQUIRED", "preflight", "preflight with a forged output header",
    "output header forged by somebody with a token", "output header forged by somebody without a token",
    "gRPC caller refused for a token, grpc-status 16", "gRPC caller refused for a token, grpc-status 7",
)  # fmt: skip


TCP_PAIRS = 200
TCP_SETS = 20


@pytest.fixture(scope="module")
def score() -> Score:
    return play("make test", SETS, PAIRS)


@pytest.fixture(scope="module")
def tcp_score() -> TcpScore:
    return tcp_batch.play("make test", TCP_SETS, TCP_PAIRS)


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


def test_the_trial_meets_what_request_authentications_can_say(score: Score) -> None:
    """What is never met is never compared."""
    met = score.features

    assert {name for name in EXPECTED if not met[name]} == set()
    assert met["let through with a token"] > 0.08 * PAIRS
    assert len([name for name in met if name.startswith("outputClaimToHeaders")]) >= 8
    assert len([name for name in met if "list or object" in name]) >= 2


def test_countersign_opens_the_connections_that_envoy_opens(tcp_score: TcpScore) -> None:
    assert tcp_score.pairs == TCP_PAIRS
    assert not tcp_score.disagreements, "\n".join(tcp_score.disagreements)
    assert 0.2 < tcp_score.share_allowed < 0.8
