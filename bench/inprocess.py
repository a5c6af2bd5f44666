"""Where the microseconds of a check go, without any transport: `python -m bench.inprocess [ROUNDS]`.

A line each for a question that was asked before (`again`) and for ones that were not; `bench.stages` has the columns.
"""

import itertools
import sys
from collections.abc import Iterator
from typing import Final

from countersign.edge import check
from countersign.edge.metrics.tally import Tally
from countersign.wire import auth_pb2 as pb

from bench.cases import Case, snapshot_and_cases
from bench.stages import STAGES, stages

_AT_A_TIME: Final = 200


def main(rounds: int) -> None:
    """Print a table: a row a case, a column a stage, microseconds."""
    snapshot, cases = snapshot_and_cases()
    vars(check)["EXPLANATIONS"] = sys.maxsize  # each denial costs what an explained one does
    print(f"{'microseconds (least of ' + str(rounds) + ' rounds)':44}", *(f"{name:>9}" for name in ("all", *STAGES)))
    for name, case in cases.items():
        for kind, payloads in (("", _others(case)), (", again", itertools.repeat(case.payload))):
            checker = check.Checker(lambda: snapshot, lambda _: None, _fail, Tally().count)  # with its own memory
            _judge(checker, case)
            found = stages(checker, payloads, rounds)
            label = f"{name}{kind} ({len(case.payload)} bytes)"
            print(f"{label:44}", *(f"{each:9.1f}" for each in (sum(found.values()), *found.values())))


def _judge(checker: check.Checker, case: Case) -> None:
    answer = checker.answer(case.payload, None)
    assert isinstance(answer, bytes)  # noqa: S101 (no key is missing)
    found = pb.CheckResponse.FromString(answer).dynamic_metadata.fields["reason"].string_value
    if found != case.reason:
        raise SystemExit(f"decided {found}, expected {case.reason}")


def _others(case: Case) -> Iterator[bytes]:
    """The case for ever, with no question twice."""
    for start in itertools.count(step=_AT_A_TIME):
        yield from case.others(_AT_A_TIME, start)


def _fail(error: Exception) -> None:
    raise error


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
