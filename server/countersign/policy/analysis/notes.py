"""Warnings about resources that have been read: finds the place in the text again, and the line to show.

Resources remember ``file:line`` only, because decisions cite that; a value's column is looked up here, when a warning
needs it.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping
from typing import Final

import yaml

from countersign.policy.problems import Code, Position, Problem
from countersign.policy.reading.document import Report

_Loader: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Places = dict[str, list[tuple[int, int]]]  # each value's lines and columns, in order


class Notes:
    """Collects warnings about the resources of some files. ``texts`` are the files, by name."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._texts = texts
        self._reports: dict[str, Report] = {}
        self._places: dict[str, _Places] = {}

    def warn(self, source: str, code: Code, message: str, help: str, value: str = "") -> None:  # noqa: A002
        """Note a warning at ``file:line``, or at the first such value from there on."""
        file, _, line = source.rpartition(":")
        report = self._reports.get(file)
        if report is None:
            report = self._reports[file] = Report(file, self._texts.get(file, "").splitlines())
        report.warning(self._position(file, int(line), value), code, message, help)

    def problems(self) -> tuple[Problem, ...]:
        """Every warning once, by position."""
        found = {problem: None for report in self._reports.values() for problem in report.problems}
        return tuple(sorted(found, key=lambda problem: (problem.position, problem.code)))

    def _position(self, file: str, line: int, value: str) -> Position:
        if value and file in self._texts:
            places = self._places.get(file)
            if places is None:
                places = self._places[file] = _places(self._texts[file])
            found = places.get(value, [])
            at = bisect_left(found, (line,))
            if at < len(found):
                return Position(file, *found[at])
        return Position(file, line, 1)


def _places(text: str) -> _Places:
    """Every scalar of a text that is known to be YAML."""
    places: _Places = defaultdict(list)
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.ScalarEvent) and event.start_mark is not None:
            places[event.value].append((event.start_mark.line + 1, event.start_mark.column + 1))
    return places
