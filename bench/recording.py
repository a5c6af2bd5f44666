"""What the log of decisions costs, without any transport: `python -m bench.recording [ROUNDS]`.

Microseconds of processor time for each check, of the thread that answers and of the whole process (the thread that
writes included), with the log off, in a file, in a chained file. Compare them within one run.
"""

import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from countersign.edge.check import Checker
from countersign.edge.metrics.tally import Tally
from countersign.record.recorder import Recorder, observing
from countersign.record.settings import LogFile, RecordSettings
from countersign.snapshot import Snapshot

from bench.cases import Case, snapshot_and_cases

_CHECKS: Final = 4000  # a round, fewer than the queue has places
_ARMS: Final = ("off", "file", "chained")


def main(rounds: int) -> None:
    """Print a table: a row a case, for each arm the answering thread and the process."""
    snapshot, cases = snapshot_and_cases()
    print(f"{'median of ' + str(rounds) + ' rounds, microseconds':44}", *(f"{arm:>18}" for arm in _ARMS))
    with tempfile.TemporaryDirectory() as folder:
        recorders = {arm: _recorder(arm, Path(folder)) for arm in _ARMS}
        checkers = {arm: _checker(snapshot, recorder) for arm, recorder in recorders.items()}
        for name, case in cases.items():
            for kind, payloads in _kinds(case):
                found = {arm: list[tuple[float, float]]() for arm in _ARMS}
                for number, arm in itertools.product(range(rounds), _ARMS):
                    found[arm].append(_round(checkers[arm], recorders[arm], payloads(number)))
                medians = (map(statistics.median, zip(*found[arm], strict=True)) for arm in _ARMS)
                print(f"{name + ', ' + kind:44}", *("{:8.1f} {:9.1f}".format(*each) for each in medians))
        for recorder in recorders.values():
            if recorder is not None:
                recorder.stop()
                print(recorder.logged)


def _recorder(arm: str, folder: Path) -> Recorder | None:
    if arm == _ARMS[0]:
        return None
    recorder = Recorder(RecordSettings(to=LogFile(folder / arm), chain=arm == "chained"))
    recorder.start()
    return recorder


def _checker(snapshot: Snapshot, recorder: Recorder | None) -> Checker:
    observe = observing(recorder, Tally().count)
    return Checker(lambda: snapshot, lambda _: None, _fail, observe, number_allows=recorder is not None)


def _kinds(case: Case) -> tuple[tuple[str, Callable[[int], list[bytes]]], ...]:
    return (
        ("again", lambda _: [case.payload] * _CHECKS),
        ("first", lambda number: case.others(_CHECKS, number * _CHECKS)),
    )


def _round(checker: Checker, recorder: Recorder | None, payloads: list[bytes]) -> tuple[float, float]:
    answer = checker.answer
    wanted = 0 if recorder is None else recorder.logged.records + len(payloads)
    process, thread = time.process_time(), time.thread_time()
    for payload in payloads:
        answer(payload, 0.25)
    own = time.thread_time() - thread
    while recorder is not None and recorder.logged.records < wanted:
        time.sleep(0.005)
    return own / len(payloads) * 1e6, (time.process_time() - process) / len(payloads) * 1e6


def _fail(error: Exception) -> None:
    raise error


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
