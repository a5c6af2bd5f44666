"""A problem says where, what, and what to do; its code is stable."""

import pytest
from countersign.policy.problems import Code, PolicyError, Position, Problem, Severity, did_you_mean


def _problem(**more: str) -> Problem:
    return Problem(
        severity=Severity.ERROR, code=Code.WRONG_TYPE, position=Position("a.yaml", 3, 5), message="wrong", **more
    )


def test_a_problem_is_one_line_an_editor_can_jump_to() -> None:
    assert str(_problem()) == "a.yaml:3:5: error[CS0004]: wrong"


def test_a_rendered_problem_points_into_its_line() -> None:
    assert _problem(snippet="    on: x", help="quote it").render() == (
        "a.yaml:3:5: error[CS0004]: wrong\n        on: x\n        ^\n    help: quote it"
    )


def test_a_problem_without_line_or_help_is_rendered_without() -> None:
    assert _problem().render() == str(_problem())


def test_the_codes_are_for_ever() -> None:
    assert {code.name: str(code) for code in Code}.items() >= {
        "SYNTAX": "CS0001",
        "DUPLICATE_KEY": "CS0002",
        "UNKNOWN_FIELD": "CS0003",
        "WRONG_TYPE": "CS0004",
        "MISSING_FIELD": "CS0005",
        "DUPLICATE_RESOURCE": "CS0007",
        "UNREADABLE_FILE": "CS0008",
        "INVALID_VALUE": "IST0106",
    }.items()


def test_an_error_of_the_whole_set_has_every_problem() -> None:
    error = PolicyError([_problem(), _problem(help="x")])

    assert len(error.problems) == 2
    assert str(error) == "a.yaml:3:5: error[CS0004]: wrong\na.yaml:3:5: error[CS0004]: wrong\n    help: x"


def test_positions_sort_by_file_line_and_column() -> None:
    places = [Position("b", 1, 1), Position("a", 10, 1), Position("a", 2, 9), Position("a", 2, 1)]

    assert [str(place) for place in sorted(places)] == ["a:2:1", "a:2:9", "a:10:1", "b:1:1"]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ("princpals", "did you mean `principals`?"),
        ("Principals", "did you mean `principals`?"),
        ("zzz", "known here: hosts, principals"),
        ("", "known here: hosts, principals"),
    ],
)
def test_a_misspelling_is_answered_by_the_closest_word_or_by_all(found: str, expected: str) -> None:
    assert did_you_mean(found, {"principals", "hosts"}) == expected
