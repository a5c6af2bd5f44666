"""Problems of policy files for people (text) and for machines: JSON, SARIF 2.1.0, GitHub's workflow commands.

Source: OASIS SARIF 2.1.0; docs.github.com "Workflow commands for GitHub Actions", actions/toolkit command.ts (escapes).
"""

import json
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from importlib.metadata import version
from typing import Any, Final
from urllib.parse import quote

from countersign.policy.problems import Problem, Severity
from countersign.proxy.lint.codes import EnvoyCode

_DOCS: Final = "docs/analyze.md"
_ENVOY_DOCS: Final = "docs/envoy-config.md"
_SARIF_SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"

Format = Callable[[Sequence[Problem], int], str]  # problems and the number of files, as text that ends its line


def anchor(code: StrEnum) -> str:
    """Where the documentation has a code."""
    return f"{_ENVOY_DOCS if isinstance(code, EnvoyCode) else _DOCS}#{code.lower()}"


def _text(problems: Sequence[Problem], files: int) -> str:
    if not problems:
        return ""
    errors = sum(problem.severity is Severity.ERROR for problem in problems)
    summary = f"{count(errors, 'error')}, {count(len(problems) - errors, 'warning')} in {count(files, 'file')}"
    return "".join(f"{problem.render()}\n\n" for problem in problems) + f"{summary}\n"


def count(number: int, noun: str) -> str:
    """A number of things, in words."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _json(problems: Sequence[Problem], _: int) -> str:
    return _dump(
        [
            {
                "code": problem.code,
                "severity": problem.severity,
                "file": problem.position.file,
                "line": problem.position.line,
                "column": problem.position.column,
                "message": problem.message,
                "help": problem.help,
                "docs": anchor(problem.code),
            }
            for problem in problems
        ]
    )


def _dump(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _sarif(problems: Sequence[Problem], _: int) -> str:
    codes = sorted({problem.code for problem in problems})
    driver = {
        "name": "countersign",
        "version": version("countersign"),
        "semanticVersion": version("countersign"),
        "rules": [_sarif_rule(code) for code in codes],
    }
    results = [_sarif_result(problem, codes.index(problem.code)) for problem in problems]
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return _dump({"$schema": _SARIF_SCHEMA, "version": "2.1.0", "runs": [run]})


def _sarif_rule(code: StrEnum) -> dict[str, Any]:
    return {
        "id": code,
        "name": "".join(word.capitalize() for word in code.name.split("_")),
        "shortDescription": {"text": _title(code)},
        "help": {"text": f"see {anchor(code)}"},
    }


def _sarif_result(problem: Problem, rule: int) -> dict[str, Any]:
    region: dict[str, Any] = {"startLine": problem.position.line, "startColumn": problem.position.column}
    if problem.snippet:
        region["snippet"] = {"text": problem.snippet}
    place = {"artifactLocation": {"uri": _uri(problem.position.file)}, "region": region}
    message = f"{problem.message}. {problem.help}" if problem.help else problem.message
    return {
        "ruleId": problem.code,
        "ruleIndex": rule,
        "level": problem.severity,  # `error` and `warning` are SARIF's words too
        "message": {"text": message},
        "locations": [{"physicalLocation": place}],
    }


def _uri(file: str) -> str:
    """A relative reference, which code scanning resolves against the repository, or a file: URI."""
    return f"file://{quote(file)}" if file.startswith("/") else quote(file)  # `:` is quoted: no scheme is read


def _title(code: StrEnum) -> str:
    return code.name.replace("_", " ").lower()


def _github(problems: Sequence[Problem], _: int) -> str:
    return "".join(f"{_github_command(problem)}\n" for problem in problems)


def _github_command(problem: Problem) -> str:
    position = problem.position
    properties = {
        "file": position.file,
        "line": str(position.line),
        "col": str(position.column),
        "title": f"{problem.code} {_title(problem.code)}",
    }
    written = ",".join(f"{name}={_escape_property(value)}" for name, value in properties.items())
    message = f"{problem.message}\n{problem.help}" if problem.help else problem.message
    return f"::{problem.severity} {written}::{_escape(message)}"


def _escape(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _escape_property(text: str) -> str:
    return _escape(text).replace(":", "%3A").replace(",", "%2C")


FORMATS: Final[Mapping[str, Format]] = {"text": _text, "json": _json, "sarif": _sarif, "github": _github}
