"""Three times as many checks as can be answered: how soon who is one too many hears so, and when all is well again."""

import itertools
from collections.abc import Iterator
from typing import Final, NamedTuple

from countersign.wire import auth_pb2

from bench import arms, material
from bench.http2 import Exchange, Load
from bench.measure import CONCURRENCY, WrongDecisionError
from bench.prepare import HOT_RULES, Bench, free_port

_CPU: Final = 0
_TOKENS: Final = 10_000  # each comes round after the server has forgotten it: a check costs a signature
_FORGETFUL: Final = ("--token-cache", "1000")
_TOO_MANY: Final = 3.0  # times what the server can answer
_SLICE: Final = 0.1  # seconds
_SLICES: Final = 30
_WELL: Final = 0.020  # seconds: p99 of a server that is half busy, and then some


class Overload(NamedTuple):
    """``shed_p99``: seconds until a check hears that it is one too many; ``recovery``: until none does any more."""

    shed: float  # the share of all checks
    shed_p99: float
    recovery: float


def overload(bench: Bench, seconds: float) -> Overload:
    """Flood a server, then ask it as much as it can bear. Raise `WrongDecisionError` if it answers anything else."""
    checks = bench.checks(HOT_RULES, material.tokens(bench.issuer, "ES256", _TOKENS))
    turn: Iterator[Exchange] = itertools.cycle(checks)
    command = arms.countersign(bench.directory / "arm.sock", bench.policies(HOT_RULES), free_port(), *_FORGETFUL)
    with arms.running("arm", command, bench.directory, _CPU, checks[0]) as server:
        load = Load(server.address, _by_reason)
        try:
            capacity = load.closed_loop(turn, seconds, CONCURRENCY).rate
            flooded = load.open_loop(turn, seconds, capacity * _TOO_MANY)
            recovery = _recovered(load, turn, capacity / 2)
        finally:
            load.close()
    shed = flooded.by_answer.get("server-overloaded", [])
    ordered = sorted(shed)
    others = flooded.answers.keys() - {"allow", "server-overloaded"}
    if others:
        raise WrongDecisionError(f"expected to be allowed or shed, got {dict(flooded.answers)}")
    return Overload(len(shed) / len(flooded.latencies), ordered[int(0.99 * len(ordered))] if ordered else 0.0, recovery)


def _recovered(load: Load, turn: Iterator[Exchange], rate: float) -> float:
    """Seconds until a slice of time in which all were allowed, and soon."""
    for number in range(_SLICES):
        outcome = load.open_loop(turn, _SLICE, rate)
        if set(outcome.answers) == {"allow"} and outcome.percentile(0.99) < _WELL:
            return number * _SLICE
    return float("inf")


def _by_reason(status: int, data: bytes) -> str:
    if arms.by_decision(status, data) == "allow":
        return "allow"
    response = auth_pb2.CheckResponse.FromString(data[5:])
    return str(response.dynamic_metadata.fields["reason"].string_value)
