"""Random policies and connections on raw TCP, where only the ends of a connection and its certificate are known."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Final

import yaml

from tests.envoy.judge import generate_peers
from tests.envoy.judge import vocabulary as words
from tests.envoy.judge.generate import policy_set
from tests.envoy.judge.identities import IDENTITIES, ODD, PLAINTEXT
from tests.envoy.judge.policy_set import PolicySet, Prepare
from tests.envoy.judge.tcp_arena import Connection, TcpArena

_ODD: Final = tuple(ODD)
_FOR_PLAINTEXT: Final = 7


@dataclass(slots=True, kw_only=True)
class TcpScore:
    """What came out. A pair is one connection, judged by Envoy's own filters and by Countersign in both postures."""

    pairs: int = 0
    allowed: int = 0
    disagreements: list[str] = field(default_factory=list)

    @property
    def share_allowed(self) -> float:
        """How many of the connections Envoy let through."""
        return self.allowed / self.pairs

    def add(self, other: "TcpScore") -> None:
        """Take another score into this one."""
        self.pairs += other.pairs
        self.allowed += other.allowed
        self.disagreements += other.disagreements


def play(seed: str, sets: int, pairs: int, prepare: Prepare = list) -> TcpScore:
    """Judge ``pairs`` connections about ``sets`` policy sets; the same seed gives the same ones."""
    rng = Random(seed)  # noqa: S311 (repeatable, not secret)
    shared = generate_peers.for_mesh(rng)
    policies = prepare([replace(policy_set(rng, f"set-{number}", shared), tcp=True) for number in range(sets)])
    with tempfile.TemporaryDirectory(prefix="judge") as directory, TcpArena(policies, Path(directory)) as arena:
        return _judge(rng, arena, policies, pairs)


def _judge(rng: Random, arena: TcpArena, policies: Sequence[PolicySet], pairs: int) -> TcpScore:
    score = TcpScore()
    for number in range(pairs):
        # Only the first set's namespace can have plaintext, for no certificate tells another: it comes more often.
        own = policies[0 if number % _FOR_PLAINTEXT == 0 else number % len(policies)]
        connection = _connection(rng, plaintext=own is policies[0])
        native, answers = arena.judge(own, connection)
        score.pairs += 1
        score.allowed += native
        score.disagreements += [
            _render(posture, own, connection, native=native) for posture, own_ in answers.items() if own_ is not native
        ]
    return score


def _connection(rng: Random, *, plaintext: bool) -> Connection:
    callers = [PLAINTEXT] * 7 * plaintext + [*IDENTITIES]
    odd = rng.random() < 0.15
    return Connection(
        caller=rng.choice(_ODD if odd else callers),
        source=rng.choice(words.SOURCES),
        listener="verbatim" if odd else rng.choice(("normalising", "verbatim")),
        sni=rng.choice(words.SNIS),
    )


def _render(posture: str, policies: PolicySet, connection: Connection, *, native: bool) -> str:
    documents = yaml.safe_dump_all([*policies.shared, *policies.documents], sort_keys=False, width=200)
    says = "lets it through, and Countersign does not" if native else "closes it, and Countersign does not"
    return f"--- TCP, posture {posture}\n{documents}# {connection}\n# Envoy {says}"
