"""No file of the shared vectors lies about: each is named by the code of a test, or read with its whole folder."""

import ast
from pathlib import Path

from tests.support.vectors import locate

TESTS = Path(__file__).parent
NOT_A_VECTOR = {"INDEX.md", "LICENSE", "joserfc_LICENSE_BSD3"}
SEEDS_ONLY = TESTS / "fuzz"  # where a file is only food, its results are not compared


def words_of_the_tests() -> set[str]:
    """Every text in the code of the tests, comments and this module excluded."""
    return {
        node.value
        for path in TESTS.rglob("*.py")
        if path != Path(__file__) and SEEDS_ONLY not in path.parents
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def test_every_file_of_the_vectors_is_read_by_a_test() -> None:
    words, root = words_of_the_tests(), locate("vectors")
    files = {path.relative_to(root) for path in root.rglob("*") if path.is_file() and path.name not in NOT_A_VECTOR}
    unread = [
        str(file)
        for file in sorted(files)
        if not any(word.endswith(file.name) or word == file.stem for word in words)
        and f"vectors/{file.parent}" not in words
    ]

    assert len(files) > 60
    assert not unread


def test_a_file_that_nobody_names_would_be_found() -> None:
    assert not any(word.endswith("nobody_names_this.json") for word in words_of_the_tests())
