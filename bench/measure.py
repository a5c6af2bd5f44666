"""One arm, measured: saturated, at half of that, and at a rate that every arm can bear."""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from bench.http2 import Exchange, Load, Outcome

CONCURRENCY: Final = 32
COMMON_RATE: Final = 1000.0  # checks a second, the same for every arm

_WARM_UP: Final = 0.3  # of a run's seconds


class WrongDecisionError(RuntimeError):
    """An arm decided otherwise than the benchmark expects: nothing of it is timed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Of one run. CPU is microseconds of the server for each check, latencies are microseconds, memory is MB."""

    rate: float
    cpu_saturated: float
    cpu_common: float
    p50: float
    p99: float
    p999: float
    idle: float = 0.0
    memory: float = 0.0


def measure(
    load: Load, turn: Iterator[Exchange], expected: Mapping[str, float], cpu: Callable[[], float], seconds: float
) -> Figures:
    """Three runs over endless exchanges.

    ``expected``: the share of each answer. Raise `WrongDecisionError` if it is not met.
    """
    load.closed_loop(turn, seconds * _WARM_UP, CONCURRENCY)
    saturated, cpu_saturated = _run(lambda: load.closed_loop(turn, seconds, CONCURRENCY), expected, cpu)
    half, _ = _run(lambda: load.open_loop(turn, seconds, saturated.rate / 2), expected, cpu)
    _, cpu_common = _run(lambda: load.open_loop(turn, seconds, COMMON_RATE), expected, cpu)
    return Figures(
        rate=saturated.rate,
        cpu_saturated=cpu_saturated,
        cpu_common=cpu_common,
        p50=half.percentile(0.5) * 1e6,
        p99=half.percentile(0.99) * 1e6,
        p999=half.percentile(0.999) * 1e6,
    )


def _run(run: Callable[[], Outcome], expected: Mapping[str, float], cpu: Callable[[], float]) -> tuple[Outcome, float]:
    before = cpu()
    outcome = run()
    used = cpu() - before
    check(outcome, expected)
    return outcome, used / len(outcome.latencies) * 1e6


def check(outcome: Outcome, expected: Mapping[str, float], tolerance: float = 0.01) -> None:
    """Raise `WrongDecisionError` unless the answers came in the expected shares, give or take the tolerance."""
    total = sum(outcome.answers.values())
    for answer in {*expected, *outcome.answers}:
        if not total or abs(outcome.answers[answer] / total - expected.get(answer, 0.0)) > tolerance:
            raise WrongDecisionError(f"expected {dict(expected)}, got {dict(outcome.answers)}")


def median(rounds: Sequence[Figures]) -> Figures:
    """Each figure's median over the rounds."""
    return Figures(**{name: statistics.median(asdict(each)[name] for each in rounds) for name in asdict(rounds[0])})
