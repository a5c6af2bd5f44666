"""The request path compiled with mypyc, against the same sources interpreted: `make bench-compiled`.

usage: python -m bench.compiled SITE [ROUNDS]; SITE is where `make compiled` has put the package.

Both take turns, so that whatever else the machine does meets both. Figures are medians of CPU time in microseconds: of
a check in process (`bench.inprocess` has the stages), and of the server for each check.
"""

import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from countersign.edge.check import Checker
from countersign.mesh.issuer import Issuer, IssuerServer

from bench import arms, callout, material
from bench.cases import snapshot_and_cases
from bench.http2 import Load
from bench.measure import CONCURRENCY, check
from bench.prepare import Bench

_ARMS: Final = (callout.HOT, callout.NEW, "countersign, denied by policy", f"{callout.COLD}, RS256", callout.MANY)
_SERVER_CPU, _CLIENT_CPU = 0, 1
_SECONDS: Final = 2.0
_CHECKS: Final = 200  # in process, a round
_ROUNDS: Final = 20

Rows = dict[str, dict[str, list[float]]]  # what -> code -> a figure a round


def main(site: str, rounds: int) -> None:
    """Print a table: a row a figure, interpreted, compiled, and the one by the other."""
    rows: Rows = {}
    os.sched_setaffinity(0, {_CLIENT_CPU})
    _take_turns(rows, site, rounds, _in_process)
    issuer = Issuer(material.ISSUER)
    with tempfile.TemporaryDirectory(prefix="cs-bench-") as name, IssuerServer(issuer) as server:
        bench = Bench(Path(name), issuer, server.jwks_uri)
        for arm in callout.callout_arms(bench):
            if arm.name in _ARMS:
                _take_turns(rows, site, rounds, lambda words, arm=arm: _server(bench, arm, words))  # type: ignore[misc]
    print(f"{f'medians of {rounds} rounds':58}{'interpreted':>12}{'compiled':>12}{'ratio':>8}")
    for what, figures in rows.items():
        interpreted, compiled = (statistics.median(figures[code]) for code in ("interpreted", "compiled"))
        print(f"{what:58}{interpreted:12.2f}{compiled:12.2f}{compiled / interpreted:8.2f}")


def _take_turns(rows: Rows, site: str, rounds: int, measure: Callable[[list[str]], dict[str, float]]) -> None:
    for _ in range(rounds):
        for code, words in (("interpreted", ["env"]), ("compiled", ["env", f"PYTHONPATH={site}"])):
            for what, figure in measure(words).items():
                rows.setdefault(what, {}).setdefault(code, []).append(figure)


def _in_process(words: list[str]) -> dict[str, float]:
    command = [*words, sys.executable, "-m", "bench.compiled"]
    found: dict[str, float] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return found


def _server(bench: Bench, arm: callout.Arm, words: list[str]) -> dict[str, float]:
    command = [*words, *arm.command(bench.directory / "arm.sock")]
    with arms.running("arm", command, bench.directory, _SERVER_CPU, arm.first) as server:
        idle, turn = server.memory(), itertools.cycle(arm.exchanges())
        load = Load(server.address, arms.by_decision)
        try:
            load.closed_loop(turn, _SECONDS / 2, CONCURRENCY)
            before = server.cpu()
            outcome = load.closed_loop(turn, _SECONDS, CONCURRENCY)
            used = server.cpu() - before
        finally:
            load.close()
        check(outcome, arm.expected)
        return {
            f"server, us: {arm.name}": used / len(outcome.latencies) * 1e6,
            f"MB at the start: {arm.name}": idle,
            f"s to the first answer: {arm.name}": server.started_in,
        }


def _answers() -> dict[str, float]:
    """What this process takes for each case, asked before and not."""
    snapshot, cases = snapshot_and_cases()
    found = {}
    for name, case in cases.items():
        checker = Checker(lambda: snapshot, lambda _: None, _fail)  # some cases ask the same as others
        _round(checker, [case.payload])
        new = (case.others(_CHECKS, number * _CHECKS) for number in range(_ROUNDS))
        found[f"in process, us: {name}, asked before"] = min(
            _round(checker, [case.payload] * _CHECKS) for _ in range(_ROUNDS)
        )
        found[f"in process, us: {name}, new"] = min(_round(checker, payloads) for payloads in new)
    return found


def _round(checker: Checker, payloads: list[bytes]) -> float:
    begun = time.thread_time()
    for payload in payloads:
        checker.answer(payload, 0.25)
    return (time.thread_time() - begun) / len(payloads) * 1e6


def _fail(error: Exception) -> None:
    raise error


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 3)  # noqa: PLR2004
    else:
        print(json.dumps(_answers()))
