"""Where the microseconds of a check go in process: each stage is timed where the pipeline calls it.

One stage is timed at a time, so that no clock is read inside another's time; what reading it costs is taken off. Of a
stage with others inside, their time is taken off too. Figures are of one run on one machine: compare them within it.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from countersign import authorize as pipeline
from countersign.edge import check, remembered
from countersign.tokens import verify
from countersign.wire import outline

SOUNDNESS: Final = "protobuf"  # whether the message is sound
QUESTION: Final = "question"  # what is asked, taken apart from what is different in every check
DIGEST: Final = "digest"  # by which the question is known again
FACTS: Final = "facts"  # of a question that is not
PEER: Final = "peer"
TOKEN: Final = "token"  # noqa: S105
SIGNATURE: Final = "signature"
POLICIES: Final = "policies"
ANSWER: Final = "answer"  # written
METRICS: Final = "metrics"  # told of it
REST: Final = "rest"
STAGES: Final = (SOUNDNESS, QUESTION, DIGEST, FACTS, PEER, TOKEN, SIGNATURE, POLICIES, ANSWER, METRICS, REST)

_INSIDE: Final[Mapping[str, Sequence[str]]] = {
    QUESTION: (SOUNDNESS,),
    DIGEST: (SOUNDNESS, QUESTION),
    TOKEN: (SIGNATURE,),
    POLICIES: (PEER, TOKEN, SIGNATURE),
}
_CHECKS: Final = 200  # a round


def stages(checker: check.Checker, payloads: Iterator[bytes], rounds: int) -> dict[str, float]:
    """Microseconds of each of `STAGES` in the answers to endless checks: the least of so many rounds.

    ``checker`` has somebody to tell of each answer. Together they are what a check takes.
    """

    def least(timed: Callable[[], float]) -> float:
        return min(timed() for _ in range(rounds))

    def whole() -> float:
        return per_check(checker, list(islice(payloads, _CHECKS)))

    least(whole)  # what can be remembered is
    reading = least(_cost_of_reading)
    spent: dict[str, float] = {}
    for stage, places in _places(checker).items():
        spent[stage] = least(lambda places=places: _spent(whole, places, reading))  # type: ignore[misc]
        for inner in _INSIDE.get(stage, ()):
            spent[stage] -= spent[inner]
    return {stage: spent[stage] for stage in STAGES[:-1]} | {REST: least(whole) - sum(spent.values())}


def per_check(checker: check.Checker, payloads: Sequence[bytes]) -> float:
    """Microseconds of CPU for each of these."""
    answer = checker.answer
    begun = time.thread_time()
    for payload in payloads:
        answer(payload, 0.25)
    return (time.thread_time() - begun) / len(payloads) * 1e6


def _places(checker: check.Checker) -> dict[str, list[tuple[Any, str]]]:
    """Where each stage is called: an object, and the name in it. What is inside another comes before it."""
    memory = vars(checker)["_memory"]
    return {
        SOUNDNESS: [(outline, "is_sound")],
        QUESTION: [(vars(memory)["_asking"], "ask")],
        DIGEST: [(memory, "question")],
        FACTS: [(remembered, "facts_of")],
        PEER: [(pipeline, "authenticate_peer")],
        SIGNATURE: [(algorithm, "verify") for algorithm in vars(verify)["_SIGNATURES"].values()],
        TOKEN: [(pipeline, "authenticate")],
        POLICIES: [(check, "authorize")],
        ANSWER: [(check, "encode")],
        METRICS: [(checker, "_observe")],
    }


class _Timer:
    """Calls the original, and knows how often and how long that took in all."""

    def __init__(self, original: Callable[..., Any]) -> None:
        self.original = original
        self.calls = 0
        self.seconds = 0.0

    def __call__(self, *arguments: Any, **named: Any) -> Any:  # noqa: ANN401 (any stage)
        begun = time.thread_time()
        try:
            return self.original(*arguments, **named)
        finally:
            self.seconds += time.thread_time() - begun
            self.calls += 1


def _cost_of_reading() -> float:
    """Microseconds that a `_Timer` takes for nothing."""
    timer = _Timer(lambda: None)
    for _ in range(_CHECKS):
        timer()
    return timer.seconds / timer.calls * 1e6


def _spent(work: Callable[[], object], places: Sequence[tuple[Any, str]], reading: float) -> float:
    """Microseconds for each check that are spent at these places."""
    timers = [_Timer(getattr(*place)) for place in places]
    try:
        for (where, name), timer in zip(places, timers, strict=True):
            setattr(where, name, timer)
        work()
    finally:
        for (where, name), timer in zip(places, timers, strict=True):
            setattr(where, name, timer.original)
    return sum(timer.seconds * 1e6 - timer.calls * reading for timer in timers) / _CHECKS
