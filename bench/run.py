"""`make bench`: every arm in one run, on the same CheckRequests, each server on one core; medians and ratios.

usage: python -m bench.run [--rounds N] [--seconds S] [--only WORD] [--json FILE] [--chart FILE]
"""

import argparse
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from countersign.mesh.issuer import Issuer, IssuerServer
from countersign.mesh.process import MeshError

from bench import callout, changing, material, memory, overload, through_envoy
from bench.callout import Arm
from bench.http2 import LoadError
from bench.measure import Figures, WrongDecisionError, median
from bench.prepare import Bench
from bench.profile import Profile, profiled
from bench.report import Report
from bench.targets import targets

_CLIENT_CPU: Final = 1


@dataclass(slots=True)
class _Found:
    """What was measured until now, by arm, and what was not."""

    figures: dict[str, list[Figures]] = field(default_factory=dict)
    starts: dict[str, list[float]] = field(default_factory=dict)
    rates: dict[str, list[float]] = field(default_factory=dict)
    moving: dict[str, changing.Moving] = field(default_factory=dict)
    filled: float = 0.0
    flooded: overload.Overload | None = None
    left_out: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def main() -> int:
    """Run and print. 1 if an arm failed; a missed target is a result, not a failure."""
    arguments = _arguments()
    os.sched_setaffinity(0, {_CLIENT_CPU})
    found = _Found()
    issuer = Issuer(material.ISSUER)
    with tempfile.TemporaryDirectory(prefix="cs-bench-") as directory, IssuerServer(issuer) as server:
        bench = Bench(Path(directory), issuer, server.jwks_uri)
        arms = [*callout.callout_arms(bench), *callout.go_arms(bench, found.left_out)]
        wanted = [arm for arm in arms if arguments.only in arm.name]
        for number in range(1, arguments.rounds + 1):
            _round(bench, wanted, number, arguments, found)
        if not arguments.only:
            _once(bench, arguments.seconds, found)
        report = _report(found, arguments)
        report = replace(report, profiles=_profiles(bench, wanted, report.missed(), arguments.seconds, found.failed))
    print(report.text())
    if arguments.json:
        report.write_json(arguments.json)
    if arguments.chart:
        report.write_chart(arguments.chart)
    for each in found.failed:
        print(f"failed: {each}", file=sys.stderr)
    return 1 if found.failed else 0


def _round(bench: Bench, wanted: Iterable[Arm], number: int, arguments: argparse.Namespace, found: _Found) -> None:
    for arm in wanted:
        with _failing(arm.name, found.failed, f"round {number}: {arm.name}"):
            figures, started = callout.run_arm(bench, arm, arguments.seconds)
            found.figures.setdefault(arm.name, []).append(figures)
            found.starts.setdefault(arm.name, []).append(started)
    for each in () if arguments.only else through_envoy.ARMS:
        with _failing(each, found.failed, f"round {number}: {each}"):
            found.rates.setdefault(each, []).append(through_envoy.rate(bench, each, arguments.seconds))


def _once(bench: Bench, seconds: float, found: _Found) -> None:
    for name, disturbed in ((changing.RELOADS, changing.reloads), (changing.ROTATIONS, changing.rotations)):
        with _failing(name, found.failed, name):
            moving = found.moving[name] = disturbed(bench, seconds * 4)
            found.figures[name] = [moving.figures]
            found.starts[name] = [moving.started_in]
    with _failing("overload", found.failed, "overload"):
        found.flooded = overload.overload(bench, seconds)
    with _failing("memory", found.failed, "memory"):
        found.filled = memory.filled(bench)


def _report(found: _Found, arguments: argparse.Namespace) -> Report:
    figures = {arm: median(rounds) for arm, rounds in found.figures.items()}
    starts = {arm: statistics.median(each) for arm, each in found.starts.items()}
    rates = {arm: statistics.median(each) for arm, each in found.rates.items()}
    return Report(
        figures=figures,
        starts=starts,
        through_envoy=rates,
        targets=targets(figures, starts, rates, found.moving, found.filled, found.flooded),
        left_out=found.left_out,
        machine=f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"{arguments.rounds} rounds of {arguments.seconds:g} s, medians",
    )


def _profiles(
    bench: Bench, wanted: Iterable[Arm], missed: Collection[str], seconds: float, failed: list[str]
) -> dict[str, Profile]:
    profiles = {}
    for arm in wanted:
        if arm.name in missed:
            with _failing(arm.name, failed, f"profile: {arm.name}"):
                profiles[arm.name] = profiled(bench, arm, seconds)
    return profiles


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
