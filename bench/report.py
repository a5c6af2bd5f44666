"""The benchmark's results for people and machines: a table with ratios, JSON, and a chart."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.measure import Figures
from bench.profile import Profile
from bench.stages import STAGES


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A ratio or a figure that was promised, and what was measured. ``measured`` is None if an arm was left out.

    Without a ``limit`` nothing was promised, and it is only told. ``arms`` are those of ours whose profiles show why it
    is missed.
    """

    what: str
    limit: float | None
    measured: float | None
    at_least: bool = False
    arms: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """Met, missed or left out."""
        if self.measured is None:
            return "left out"
        if self.limit is None:
            return ""
        met = self.measured >= self.limit if self.at_least else self.measured <= self.limit
        return "met" if met else "MISSED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything one run has found. ``starts`` are seconds to the first answer, ``through_envoy`` requests a second."""

    figures: Mapping[str, Figures]
    starts: Mapping[str, float]
    through_envoy: Mapping[str, float]
    targets: Sequence[Target]
    left_out: Sequence[str]
    machine: str
    profiles: Mapping[str, Profile] = field(default_factory=dict)

    def missed(self) -> frozenset[str]:
        """The arms whose profiles show why a target is missed."""
        return frozenset(arm for target in self.targets if target.verdict == "MISSED" for arm in target.arms)

    def text(self) -> str:
        """The tables."""
        lines = [self.machine, "", *_callout(self), "", *_through(self.through_envoy), "", *_targets(self.targets)]
        if self.profiles:
            lines += ["", *_profiles(self.profiles)]
        lines += ["", *(f"left out: {each}" for each in self.left_out)]
        return "\n".join(lines).rstrip()

    def write_json(self, file: Path) -> None:
        """All of it, for machines."""
        document: dict[str, Any] = {
            "machine": self.machine,
            "callout": {name: asdict(each) for name, each in self.figures.items()},
            "start_seconds": dict(self.starts),
            "through_envoy": dict(self.through_envoy),
            "targets": [asdict(each) | {"verdict": each.verdict} for each in self.targets],
            "profiles": {name: asdict(each) for name, each in self.profiles.items()},
            "left_out": list(self.left_out),
        }
        file.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")

    def write_chart(self, file: Path) -> None:
        """CPU for each check, saturated, as bars."""
        import matplotlib as mpl  # noqa: PLC0415 (the extra `bench`)

        mpl.use("agg")
        from matplotlib import pyplot as plt  # noqa: PLC0415

        names = list(self.figures)[::-1]
        values = [self.figures[name].cpu_saturated for name in names]
        figure, axes = plt.subplots(figsize=(9, 0.4 * len(names) + 1.2), layout="constrained")
        ours = ["#2f6f9f" if name.startswith("countersign") else "#b0b7bd" for name in names]
        axes.bar_label(axes.barh(names, values, color=ours), fmt="%.0f", padding=3)
        axes.set_xlabel("CPU microseconds for each check, saturated, one core")
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(file, dpi=120)
        plt.close(figure)


def _callout(report: Report) -> list[str]:
    head = ("callout, one core", "checks/s", "CPU us", "at 1,000/s", "p50 us", "p99 us", "p99.9 us", "MB", "start s")
    rows: list[Sequence[str]] = [head]
    for name, each in report.figures.items():
        figures = (each.rate, each.cpu_saturated, each.cpu_common, each.p50, each.p99, each.p999, each.memory)
        rows.append((name, *(f"{figure:,.0f}" for figure in figures), f"{report.starts[name]:.2f}"))
    return _aligned(rows)


def _through(rates: Mapping[str, float]) -> list[str]:
    return _aligned([("through one Envoy worker", "requests/s"), *((n, f"{rate:,.0f}") for n, rate in rates.items())])


def _targets(targets: Sequence[Target]) -> list[str]:
    rows = [("target", "limit", "measured", "")]
    for each in targets:
        sign = ">=" if each.at_least else "<="
        measured = "" if each.measured is None else f"{each.measured:.2f}"
        rows.append((each.what, "" if each.limit is None else f"{sign} {each.limit:.3g}", measured, each.verdict))
    return _aligned(rows)


def _profiles(profiles: Mapping[str, Profile]) -> list[str]:
    rows: list[Sequence[str]] = [("profiles of the missed, CPU us", "HTTP/2", "around", *STAGES)]
    for name, each in profiles.items():
        figures = (each.http2, each.around, *(each.stages.get(stage, 0.0) for stage in STAGES))
        rows.append((name, *(f"{figure:.1f}" for figure in figures)))
    return _aligned(rows)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
