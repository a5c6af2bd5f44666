"""Warnings about resources that have been read: finds the place in the text again, and the line to show.

Resources remember ``file:line`` only, because decisions cite that; a value's column is looked up here, when a warning
needs it.
"""

from bisect import bisect_left
from collections.abc import Mapping
from typing import Final

import yaml

from countersign.policy.problems import Code, Position, Problem
from countersign.policy.reading.document import Report

_Loader: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Scalar = tuple[int, int, str]  # line, column, value


class Notes:
    """Collects warnings about the resources of some files. ``texts`` are the files, by name."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._texts = texts
        self._reports: dict[str, Report] = {}
        self._scalars: dict[str, list[_Scalar]] = {}

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
            scalars = self._scalars.get(file)
            if scalars is None:
                scalars = self._scalars[file] = _scalars(self._texts[file])
            for index in range(bisect_left(scalars, (line,)), len(scalars)):  # a slice would copy the file's rest
                at_line, column, text = scalars[index]
                if text == value:
                    return Position(file, at_line, column)
        return Position(file, line, 1)


def _scalars(text: str) -> list[_Scalar]:
    """Every scalar of a text that is known to be YAML, in its order."""
    events = (event for event in yaml.parse(text, Loader=_Loader) if isinstance(event, yaml.ScalarEvent))
    marks = ((event.start_mark, event.value) for event in events)
    return [(mark.line + 1, mark.column + 1, value) for mark, value in marks if mark is not None]
