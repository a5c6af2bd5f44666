"""What is behind a missed target: where the CPU of its arms goes, by thread of the server and by stage of a check."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from countersign.edge.check import Checker
from countersign.edge.metrics.tally import Tally
from countersign.edge.policy_files import parse_files
from countersign.policy.scope import PolicySet
from countersign.snapshot import Mesh, Snapshot
from countersign.tokens.cache import TokenCache

from bench import arms
from bench.callout import Arm
from bench.http2 import Load
from bench.measure import CONCURRENCY
from bench.prepare import Bench
from bench.stages import stages

_CPU: Final = 0
_WARM_UP: Final = 0.3  # of the seconds
_ROUNDS: Final = 10
_TOKENS: Final = 1_000  # remembered, fewer than any cold arm has
_PREFIX: Final = 5  # octets that gRPC puts before a message
_HTTP2: Final = "grpc-native-io"  # the name of pygrpc-native's thread


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """CPU microseconds of each check. ``stages``: by `bench.stages`, of a Countersign in this process."""

    http2: float
    python: float
    stages: Mapping[str, float] = field(default_factory=dict)

    @property
    def around(self) -> float:
        """What the threads of Python take beyond the stages: taking, queueing, sending, and caches that went cold."""
        return self.python - sum(self.stages.values())


def profiled(bench: Bench, arm: Arm, seconds: float) -> Profile:
    """Ask an arm on the native transport, saturated, and what it runs once more in this process."""
    command = arm.command(arm.at or bench.directory / "arm.sock")
    with arms.running("arm", command, bench.directory, _CPU, arm.first, arm.at) as server:
        turn = itertools.cycle(arm.exchanges())
        load = Load(server.address, arms.by_decision)
        try:
            load.closed_loop(turn, seconds * _WARM_UP, CONCURRENCY)
            before = server.cpu_by_thread()
            checks = len(load.closed_loop(turn, seconds, CONCURRENCY).latencies)
            after = server.cpu_by_thread()
        finally:
            load.close()
    spent = {thread: (after[thread] - before.get(thread, 0.0)) / checks * 1e6 for thread in after}
    http2 = sum(each for (name, _), each in spent.items() if name == _HTTP2)
    found = stages(_checker(bench, arm), _payloads(arm), _ROUNDS) if arm.rules else {}
    return Profile(http2=http2, python=sum(spent.values()) - http2, stages=found)


def _checker(bench: Bench, arm: Arm) -> Checker:
    """What decides in the arm's server."""
    file = bench.policies(arm.rules)
    loaded, keys = parse_files({file.name: file.read_text(encoding="utf-8")}, "")
    mesh = Mesh()
    policies = PolicySet(loaded.resources, mesh.root_namespace, generation=1)
    snapshot = Snapshot(mesh=mesh, policies=policies, keys=keys, tokens=TokenCache(_TOKENS))
    return Checker(lambda: snapshot, lambda _: None, _fail, Tally().count)


def _payloads(arm: Arm) -> Iterator[bytes]:
    return (exchange.body[_PREFIX:] for exchange in itertools.cycle(arm.exchanges()))


def _fail(error: Exception) -> None:
    raise error
