"""Problems of a cluster's objects, where their authors look for them."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from countersign.edge.kubernetes.address import SCHEME
from countersign.policy.problems import Problem
from countersign.policy.reading.field_path import field_path


def placed(problems: Iterable[Problem], texts: Mapping[str, str]) -> list[Problem]:
    """The same, those of a cluster's objects with the path of their field: the lines of its text are only ours."""
    return [_placed(problem, texts) for problem in problems]


def _placed(problem: Problem, texts: Mapping[str, str]) -> Problem:
    where = problem.position
    if not where.file.startswith(SCHEME):
        return problem
    path = field_path(texts.get(where.file, ""), where.line, where.column)
    return replace(problem, message=f"{problem.message} (at {path})") if path else problem
