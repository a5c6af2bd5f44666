"""The tests, asked of compiled modules (`make compiled-test`): what cannot be asked of them is skipped here, and why.

Names that compiled code has of its own module or imports from another compiled one are bound when it is compiled, so
a test that puts something else in their place would try nothing.
"""

from types import ModuleType
from typing import Any, Final

import pytest
from countersign import authorize

_BOUND: Final = "breaks a name of a compiled module, which its code is bound to"
# By the beginning of the test's ID.
_LEFT_OUT: Final = {
    "tests/test_cost.py": "counts calls of the interpreter, which compiled code does not make",
    "tests/test_in_force.py::test_a_workload_that_only_requests_name": "counts calls of the interpreter",
    "tests/test_docs.py": "is about the documents",
    "tests/test_image_files.py": "is about the files of the image",
}


def pytest_configure() -> None:
    """Refuse to test the sources in the name of what is compiled from them; skip what would break compiled code."""
    if not _is_compiled(authorize):
        raise pytest.UsageError(f"{authorize.__file__} is not compiled: make compiled-test builds it and has it found")
    original = pytest.MonkeyPatch.setattr

    def setattr_or_skip(patch: pytest.MonkeyPatch, target: Any, *arguments: Any, **named: Any) -> None:
        if isinstance(target, ModuleType) and _is_compiled(target):
            pytest.skip(f"{_BOUND}: {target.__name__}.{arguments[0]}")
        original(patch, target, *arguments, **named)

    pytest.MonkeyPatch().setattr(pytest.MonkeyPatch, "setattr", setattr_or_skip)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is left out."""
    for item in items:
        for beginning, reason in _LEFT_OUT.items():
            if item.nodeid.startswith(beginning):
                item.add_marker(pytest.mark.skip(reason=reason))


def _is_compiled(module: ModuleType) -> bool:
    return module.__name__.startswith("countersign.") and not str(module.__file__).endswith(".py")
