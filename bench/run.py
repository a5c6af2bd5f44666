"""`make bench`: every arm in one run, on the same CheckRequests, each server on one core; medians and ratios.

usage: python -m bench.run [--rounds N] [--seconds S] [--only WORD] [--json FILE] [--chart FILE]
"""

import argparse
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from countersign.mesh.issuer import Issuer, IssuerServer
from countersign.mesh.process import MeshError

from bench import callout, changing, material, memory, overload, through_envoy
from bench.http2 import LoadError
from bench.measure import Figures, WrongDecisionError, median
from bench.prepare import Bench
from bench.report import Report
from bench.targets import targets

_CLIENT_CPU: Final = 1


def main() -> int:
    """Run and print. 1 if an arm failed; a missed target is a result, not a failure."""
    arguments = _arguments()
    os.sched_setaffinity(0, {_CLIENT_CPU})
    failed: list[str] = []
    left_out: list[str] = []
    figures: dict[str, list[Figures]] = {}
    starts: dict[str, list[float]] = {}
    rates: dict[str, list[float]] = {}
    moving: dict[str, changing.Moving] = {}
    filled = 0.0
    flooded: overload.Overload | None = None
    issuer = Issuer(material.ISSUER)
    with tempfile.TemporaryDirectory(prefix="cs-bench-") as directory, IssuerServer(issuer) as server:
        bench = Bench(Path(directory), issuer, server.jwks_uri)
        arms = [*callout.callout_arms(bench), *callout.go_arms(bench, left_out)]
        wanted = [arm for arm in arms if arguments.only in arm.name]
        for number in range(1, arguments.rounds + 1):
            for arm in wanted:
                with _failing(arm.name, failed, f"round {number}: {arm.name}"):
                    found, started = callout.run_arm(bench, arm, arguments.seconds)
                    figures.setdefault(arm.name, []).append(found)
                    starts.setdefault(arm.name, []).append(started)
            for each in () if arguments.only else through_envoy.ARMS:
                with _failing(each, failed, f"round {number}: {each}"):
                    rates.setdefault(each, []).append(through_envoy.rate(bench, each, arguments.seconds))
        if not arguments.only:
            for name, disturbed in ((changing.RELOADS, changing.reloads), (changing.ROTATIONS, changing.rotations)):
                with _failing(name, failed, name):
                    moving[name] = disturbed(bench, arguments.seconds * 4)
                    figures[name] = [moving[name].figures]
                    starts[name] = [moving[name].started_in]
            with _failing("overload", failed, "overload"):
                flooded = overload.overload(bench, arguments.seconds)
            with _failing("memory", failed, "memory"):
                filled = memory.filled(bench)
    medians = {arm: median(rounds) for arm, rounds in figures.items()}
    first_answers = {arm: statistics.median(each) for arm, each in starts.items()}
    through = {arm: statistics.median(each) for arm, each in rates.items()}
    report = Report(
        figures=medians,
        starts=first_answers,
        through_envoy=through,
        targets=targets(medians, first_answers, through, moving, filled, flooded),
        left_out=left_out,
        machine=f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"{arguments.rounds} rounds of {arguments.seconds:g} s, medians",
    )
    print(report.text())
    if arguments.json:
        report.write_json(arguments.json)
    if arguments.chart:
        report.write_chart(arguments.chart)
    for each in failed:
        print(f"failed: {each}", file=sys.stderr)
    return 1 if failed else 0


@contextmanager
def _failing(name: str, failed: list[str], progress: str) -> Iterator[None]:
    """One arm's failure does not cost the others' results."""
    print(progress, file=sys.stderr, flush=True)
    try:
        yield
    except (WrongDecisionError, LoadError, MeshError, OSError) as error:
        failed.append(f"{name}: {error}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--rounds", type=int, default=3)
    add("--seconds", type=float, default=2.0, help="of each of an arm's three runs (default: %(default)s)")
    add("--only", default="", help="callout arms whose name has this in it, and nothing else")
    add("--json", type=Path)
    add("--chart", type=Path, help="a PNG file")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
