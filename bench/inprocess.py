"""Where the microseconds of a check go, without any transport: `python -m bench.inprocess [ROUNDS]`.

`again` is a question that was asked before, `first` one that was not; the stages are those of the latter, and each is
timed where the pipeline calls it. Figures are of one run on one machine: compare them within the run.
"""

import itertools
import sys
import time
from collections.abc import Callable
from typing import Any, Final

from countersign import authorize as pipeline
from countersign.edge import check, remembered
from countersign.wire import auth_pb2 as pb

from bench.cases import Case, snapshot_and_cases

# stage -> where the pipeline calls it; `authorize` contains the two proofs, and what is left of it are the policies
_CALLS: Final = {
    "decode": (remembered, "facts_of"),
    "authorize": (check, "authorize"),
    "peer": (pipeline, "authenticate_peer"),
    "token": (pipeline, "authenticate"),
    "encode": (check, "encode"),
}
_CHECKS: Final = 200  # a round


def main(rounds: int) -> None:
    """Print a table: a row a case, a column a stage, microseconds."""
    snapshot, cases = snapshot_and_cases()
    vars(check)["EXPLANATIONS"] = sys.maxsize  # each denial costs what an explained one does
    print(f"{'microseconds (least of ' + str(rounds) + ' rounds)':44}", *(f"{name:>9}" for name in _STAGES))
    for name, case in cases.items():
        checker = check.Checker(lambda: snapshot, lambda _: None, _fail)  # a memory of its own: some ask alike
        stages = _measure(checker, case, rounds)
        print(f"{name + f' ({len(case.payload)} bytes)':44}", *(f"{stages[stage]:9.1f}" for stage in _STAGES))


_STAGES: Final = ("again", "first", "decode", "peer", "token", "policies", "encode")


def _measure(checker: check.Checker, case: Case, rounds: int) -> dict[str, float]:
    answer = checker.answer(case.payload, None)
    assert isinstance(answer, bytes)  # noqa: S101 (no key is missing)
    found = pb.CheckResponse.FromString(answer).dynamic_metadata.fields["reason"].string_value
    if found != case.reason:
        raise SystemExit(f"decided {found}, expected {case.reason}")
    asked = itertools.count()

    def first() -> float:
        return _round(checker, case.others(_CHECKS, next(asked) * _CHECKS))

    again = [_round(checker, [case.payload] * _CHECKS) for _ in range(rounds)]
    whole = [first() for _ in range(rounds)]
    spent: dict[str, list[float]] = {stage: [] for stage in _CALLS}
    for stage, (module, name) in _CALLS.items():
        original = getattr(module, name)
        for _ in range(rounds):
            timer = _Timer(original)
            setattr(module, name, timer)
            first()
            spent[stage].append(timer.seconds / _CHECKS * 1e6)
        setattr(module, name, original)
    least = {stage: min(values) for stage, values in spent.items()}
    least["policies"] = least["authorize"] - least["peer"] - least["token"]
    return {**least, "again": min(again), "first": min(whole)}


def _round(checker: check.Checker, payloads: list[bytes]) -> float:
    answer = checker.answer
    begun = time.thread_time()
    for payload in payloads:
        answer(payload, 0.25)
    return (time.thread_time() - begun) / len(payloads) * 1e6


class _Timer:
    """Calls the original, and knows how long that took in all."""

    def __init__(self, original: Callable[..., Any]) -> None:
        self._original = original
        self.seconds = 0.0

    def __call__(self, *arguments: Any, **named: Any) -> Any:  # noqa: ANN401 (any stage)
        begun = time.thread_time()
        try:
            return self._original(*arguments, **named)
        finally:
            self.seconds += time.thread_time() - begun


def _fail(error: Exception) -> None:
    raise error


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
