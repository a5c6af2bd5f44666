"""One batch: policy sets and requests from a seed, judged in one arena."""

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

from tests.envoy.judge import cases, census, compare, generate_peers, tokens
from tests.envoy.judge.arena import Arena
from tests.envoy.judge.compare import Disagreement
from tests.envoy.judge.generate import policy_set
from tests.envoy.judge.peers import NATIVE
from tests.envoy.judge.policy_set import PolicySet, Prepare

_AGAIN: Final = 0.2  # of all requests
_RECENT: Final = 50


@dataclass(slots=True, kw_only=True)
class Score:
    """What came out. A pair is one request, judged by Envoy's own filters and by Countersign in one posture."""

    pairs: int = 0
    allowed: int = 0
    harsher: int = 0
    late: int = 0
    statuses: Counter[tuple[int, str]] = field(default_factory=Counter)
    features: Counter[str] = field(default_factory=Counter)
    disagreements: list[Disagreement] = field(default_factory=list)

    @property
    def share_allowed(self) -> float:
        """How many of the requests Envoy let through."""
        return self.allowed / self.pairs

    def add(self, other: "Score") -> None:
        """Take another score into this one."""
        self.pairs += other.pairs
        self.allowed += other.allowed
        self.harsher += other.harsher
        self.late += other.late
        self.statuses += other.statuses
        self.features += other.features
        self.disagreements += other.disagreements


def play(seed: str, sets: int, pairs: int, prepare: Prepare = list) -> Score:
    """Judge ``pairs`` requests about ``sets`` policy sets; the same seed gives the same ones."""
    rng = Random(seed)  # noqa: S311 (repeatable, not secret)
    shared = generate_peers.for_mesh(rng)
    policies = prepare([policy_set(rng, f"set-{number}", shared) for number in range(sets)])
    with tempfile.TemporaryDirectory(prefix="judge") as directory, Arena(policies, Path(directory)) as arena:
        return _judge(rng, arena, policies, pairs)


def _judge(rng: Random, arena: Arena, policies: Sequence[PolicySet], pairs: int) -> Score:
    score = Score()
    minted = tokens.mint(rng)
    asked: list[tuple[PolicySet, cases.Case]] = []
    for number in range(pairs):
        own = policies[number % len(policies)]
        case = cases.case(rng, own, minted)
        if asked and rng.random() < _AGAIN:  # what was asked before is answered from memory
            own, case = rng.choice(asked[-_RECENT:])
        asked.append((own, case))
        verdicts = arena.judge(own, case.request)
        native = verdicts[NATIVE]
        score.pairs += 1
        score.allowed += native.allowed
        score.harsher += native.allowed and not verdicts["strict"].allowed
        score.statuses[native.status, native.body] += 1
        score.features.update(set(census.features(own, case, native)))
        score.disagreements += compare.disagreements(own, case, verdicts)
    score.late = arena.late
    assert not arena.faults(), arena.faults()
    return score
