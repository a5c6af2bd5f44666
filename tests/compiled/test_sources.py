"""What mypyc takes otherwise than Python does may not be in the sources that `make compiled` compiles.

Each of these has compiled without an error, and decided otherwise; `make compiled-test` asks the compiled code itself.
"""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

_ROOT: Final = Path(__file__).parents[2]
_PACKAGE: Final = _ROOT / "server" / "countersign"
_TARGET: Final[dict[str, Any]] = tomllib.loads((_ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"][
    "targets"
]
_HOOK: Final[dict[str, Any]] = _TARGET["wheel"]["hooks"]["custom"]


def _files(patterns: list[str]) -> set[Path]:
    return {path for pattern in patterns for path in _PACKAGE.glob(pattern)}


COMPILED: Final = sorted(_files(_HOOK["modules"]) - _files(_HOOK["interpreted"]))


def _functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def two_kinds_of_errors(function: ast.AST) -> list[str]:
    """Names that several ``except`` clauses give to different errors: all but the first raise TypeError."""
    kinds: dict[str, set[str]] = {}
    for node in ast.walk(function):
        if isinstance(node, ast.ExceptHandler) and node.name and node.type:
            kinds.setdefault(node.name, set()).add(ast.unparse(node.type))
    return [name for name, types in kinds.items() if len(types) > 1]


def generators_that_are_given_away(function: ast.AST) -> list[str]:
    """Generator expressions that are returned, or have a name that `next` takes: they are lists then."""
    named = {
        target.id: node.value
        for node in ast.walk(function)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.GeneratorExp)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    taken = [node.args[0] for node in ast.walk(function) if isinstance(node, ast.Call) and _calls_next(node)]
    found = [each.id for each in taken if isinstance(each, ast.Name) and each.id in named]
    returned = [node.value for node in ast.walk(function) if isinstance(node, ast.Return)]
    return found + [ast.unparse(each) for each in returned if isinstance(each, ast.GeneratorExp)]


def _calls_next(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Name) and call.func.id == "next"


@pytest.mark.parametrize("path", COMPILED, ids=lambda path: str(path.relative_to(_PACKAGE)))
def test_what_is_compiled_means_what_it_means_interpreted(path: Path) -> None:
    assert [two_kinds_of_errors(each) for each in _functions(path) if two_kinds_of_errors(each)] == []
    assert [each.name for each in _functions(path) if generators_that_are_given_away(each)] == []


def test_both_are_found_where_they_are() -> None:
    caught = "try: f()\nexcept A as error: g(error)\nexcept B as error: h(error)"
    given = "def f(x):\n    y = (z for z in x)\n    return next(y)"

    assert two_kinds_of_errors(ast.parse(caught)) == ["error"]
    assert two_kinds_of_errors(ast.parse(caught.replace("B as error: h(error)", "B as other: h(other)"))) == []
    assert generators_that_are_given_away(ast.parse(given)) == ["y"]
    assert generators_that_are_given_away(ast.parse("def f(x):\n    return (z for z in x)")) == ["(z for z in x)"]
    assert generators_that_are_given_away(ast.parse("def f(x):\n    return [z for z in x]")) == []
    assert generators_that_are_given_away(ast.parse("def f(x):\n    return next((z for z in x), None)")) == []


@pytest.mark.parametrize("pattern", [*_HOOK["modules"], *_HOOK["interpreted"]])
def test_every_pattern_names_modules(pattern: str) -> None:
    assert _files([pattern])
