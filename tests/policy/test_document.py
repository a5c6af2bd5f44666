"""YAML as strictly as a security policy deserves: one reading, bounded, and every value knows its place."""

from enum import StrEnum

import pytest
import yaml
from countersign.policy.problems import Code, Position, Severity
from countersign.policy.reading import document
from countersign.policy.reading.document import (
    MAX_TEXT,
    Report,
    describe,
    documents,
    is_null,
    read_bool,
    read_fields,
    read_list,
    read_string,
    read_string_map,
    read_strings,
)


def _report(text: str) -> Report:
    return Report("f.yaml", text.splitlines())


def _roots(text: str) -> tuple[list[yaml.Node], Report]:
    report = _report(text)
    return list(documents(text, report)), report


def _root(text: str) -> tuple[yaml.Node, Report]:
    (root,), report = _roots(text)
    assert report.problems == []
    return root, report


def _only(report: Report) -> tuple[StrEnum, str, str, int, int]:
    (problem,) = report.problems
    assert problem.severity is Severity.ERROR
    assert problem.position.file == "f.yaml"
    return problem.code, problem.message, problem.help, problem.position.line, problem.position.column


# --- documents --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "count"), [("", 0), ("# nothing\n", 0), ("---\n---\n", 2), ("a: 1\n---\nb: 2\n", 2)])
def test_a_file_has_any_number_of_documents(text: str, count: int) -> None:
    roots, report = _roots(text)

    assert len(roots) == count
    assert report.problems == []


def test_what_does_not_parse_is_placed_and_ends_the_file_after_what_precedes() -> None:
    roots, report = _roots("a: 1\n---\nb: [1\n---\nc: 3\n")

    assert len(roots) == 1
    code, message, _, line, _ = _only(report)
    assert code is Code.SYNTAX
    assert message.startswith("not YAML: ")
    assert line == 4


@pytest.mark.parametrize(
    "text",
    [
        "a: \x00",
        "a: \x07",
        "\udcff",
        "a: \ud800",
        "a: *b",
        "a: &x 1\nb: *y",
        "%YAML 9",
        "a:\n\t- b",
        "@",
        "!<",
        '"',
        "'",
    ],
)
def test_whatever_is_no_yaml_is_a_syntax_error(text: str) -> None:
    roots, report = _roots(text)

    assert roots == []
    assert _only(report)[0] is Code.SYNTAX


@pytest.mark.parametrize(
    ("text", "place", "has"),
    [
        ("x: 1\na: *b", (2, 4), "found undefined alias"),
        ("a: [1", (2, 1), "did not find expected"),
        ("a: b: c", (1, 5), "mapping values are not allowed"),
        ("x: 1\na: \ud800", (1, 1), "surrogates not allowed"),
        ("x: 1\na: \x00", (1, 1), "unacceptable character #x0000: control characters are not allowed"),
    ],
)
def test_what_is_no_yaml_is_placed_where_the_parser_says_in_one_line(
    text: str, place: tuple[int, int], has: str
) -> None:
    code, message, advice, *found = _only(_roots(text)[1])

    assert (code, tuple(found), advice) == (Code.SYNTAX, place, "")
    assert message.startswith("not YAML: ")
    assert has in message
    assert "\n" not in message


@pytest.mark.parametrize("opening", ["[", "- ", "{a: ", "? ", "[{a: "])
@pytest.mark.parametrize("levels", [65, 1000, 500_000])
def test_deep_nesting_is_an_error_and_does_not_end_the_process(opening: str, levels: int) -> None:
    roots, report = _roots(opening * levels)

    assert roots == []
    code, message, _, _, _ = _only(report)
    assert (code, message) == (Code.SYNTAX, "nested deeper than 64 levels")


def test_sixty_four_levels_are_read() -> None:
    assert len(_roots("[" * 64 + "]" * 64)[0]) == 1
    assert _roots("[" * 65 + "]" * 65)[0] == []


def test_depth_is_told_where_it_is_too_deep() -> None:
    nested = (Code.SYNTAX, "nested deeper than 64 levels", "")

    assert _only(_roots("a: 1\nb: " + "[" * 64)[1]) == (*nested, 2, 67)
    assert _only(_roots("a: 1\nb: &a [*a]")[1]) == (*nested, 2, 4)


def test_sixty_four_levels_are_read_through_an_alias_too() -> None:
    def nested(levels: int) -> str:
        return f"a: &a {'[' * 31}x{']' * 31}\nb: {'[' * levels}*a{']' * levels}\n"

    assert _roots(nested(32))[1].problems == []
    assert _only(_roots(nested(33))[1])[1] == "nested deeper than 64 levels"


def test_a_value_that_contains_itself_is_an_error() -> None:
    roots, report = _roots("&a [*a]")

    assert roots == []
    assert _only(report)[1] == "nested deeper than 64 levels"


def test_an_alias_may_repeat_a_value_but_not_multiply_it() -> None:
    repeated = "a: &a [x]\nb: *a\n"
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{after}: &{after} [{','.join([f'*{before}'] * 9)}]\n"
        for before, after in zip("abcdefg", "bcdefgh", strict=True)
    )

    assert len(_roots(repeated)[0]) == 1
    roots, report = _roots(bomb)
    assert roots == []
    assert _only(report)[1] == "more than 500000 values, aliases expanded"


def test_values_are_counted_with_their_names_and_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "_MAX_NODES", 6)

    assert _roots("a: [x, y]\n---\nb: [x, y, z]\n")[1].problems == []
    assert _only(_roots("b: [x, y, z, z]\n")[1]) == (Code.SYNTAX, "more than 6 values, aliases expanded", "", 1, 14)


def test_a_file_larger_than_any_configmap_is_not_parsed() -> None:
    assert len(_roots("#" * MAX_TEXT)[0]) == 0
    assert _roots("#" * MAX_TEXT)[1].problems == []
    assert _only(_roots("#" * (MAX_TEXT + 1))[1]) == (Code.SYNTAX, "file larger than 10485760 characters", "", 1, 1)


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{}", "an object"),
        ("[]", "a list"),
        ("abc", "a string"),
        ('"5"', "a string"),
        ("5", "a number"),
        ("0x1F", "a number"),
        ("1_000", "a number"),
        ("22:22", "a number"),
        ("1.5", "a number"),
        (".inf", "a number"),
        ("true", "a boolean"),
        ("on", "a boolean"),
        ("No", "a boolean"),
        ("null", "null"),
        ("~", "null"),
        ("2026-01-01", "a date"),
        ("<<", "a merge key"),
        ("!!binary aGk=", "a value tagged tag:yaml.org,2002:binary"),
        ("!!python/name:os.system x", "a value tagged tag:yaml.org,2002:python/name:os.system"),
    ],
)
def test_a_value_is_described_as_what_yaml_makes_of_it(text: str, found: str) -> None:
    root, report = _root(text)

    assert describe(root) == found
    if found != "a string":
        assert read_string(root, report, "name") is None
        code, message, _, line, column = _only(report)
        assert (code, message) == (Code.WRONG_TYPE, f"`name` wants a string, found {found}")
        assert (line, column) == (1, 1)


@pytest.mark.parametrize(
    ("text", "advice"), [("5", 'quote it: "5"'), ("on", 'quote it: "on"'), ("{}", ""), ("[]", ""), ('!!null ""', "")]
)
def test_a_scalar_that_wants_quotes_is_told_so(text: str, advice: str) -> None:
    root, report = _root(text)

    assert read_string(root, report, "name") is None
    assert _only(report)[2] == advice


@pytest.mark.parametrize("text", ["y", "N", "1e3", "08080", "0o17"])
def test_what_only_kubernetes_reads_as_something_else_is_a_string(text: str) -> None:
    """To sigs.k8s.io/yaml these are booleans and numbers, which the API server refuses; they mean what stands there."""
    root, report = _root(text)

    assert read_string(root, report, "x") == text
    assert report.problems == []


def test_a_string_is_a_string_however_it_is_written() -> None:
    for text in ("abc", "'abc'", '"abc"', "|-\n  abc", ">-\n  abc", "!!str abc"):
        root, report = _root(text)
        assert read_string(root, report, "name") == "abc"


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("True", True), ("TRUE", True), ("false", False), ("FALSE", False)]
)
def test_a_boolean_is_true_or_false(text: str, *, value: bool) -> None:
    root, report = _root(text)

    assert read_bool(root, report, "flag") is value
    assert report.problems == []


@pytest.mark.parametrize("text", ["yes", "on", "No", "off", "'true'", "1", "null", "[]"])
def test_no_other_spelling_of_a_boolean_counts(text: str) -> None:
    root, report = _root(text)

    assert read_bool(root, report, "flag") is False
    code, message, _, _, _ = _only(report)
    assert code is Code.WRONG_TYPE
    assert message.startswith("`flag` wants true or false, found ")


def test_a_list_is_read_with_each_items_place() -> None:
    root, report = _root("- a\n- b")

    assert [(text, report.position(node).line) for text, node in read_strings(root, report, "names")] == [
        ("a", 1),
        ("b", 2),
    ]
    assert len(read_list(root, report, "names")) == 2


@pytest.mark.parametrize(("text", "found"), [("a", "a string"), ("{}", "an object"), ("null", "null")])
def test_what_is_no_list_is_not_made_one(text: str, found: str) -> None:
    root, report = _root(text)

    assert read_strings(root, report, "names") == []
    assert _only(report)[:2] == (Code.WRONG_TYPE, f"`names` wants a list, found {found}")


def test_an_item_of_the_wrong_type_is_reported_and_the_others_are_read() -> None:
    root, report = _root("[a, 5, b]")

    assert [text for text, _ in read_strings(root, report, "ports")] == ["a", "b"]
    assert _only(report)[1:] == ("`ports` wants a string, found a number", 'quote it: "5"', 1, 5)


def test_an_unknown_field_names_its_neighbour() -> None:
    root, report = _root("name: a\nselecter: b\n")

    assert list(read_fields(root, report, frozenset({"name", "selector"}), "spec")) == ["name"]
    assert _only(report) == (
        Code.UNKNOWN_FIELD,
        "unknown field `selecter` in `spec`",
        "did you mean `selector`?",
        2,
        1,
    )


def test_a_field_twice_names_the_first_place() -> None:
    root, report = _root("a: 1\nb: 2\na: 3\n")

    assert list(read_fields(root, report, None, "spec")) == ["a", "b"]
    assert _only(report) == (Code.DUPLICATE_KEY, "`a` is here twice, first at line 1", "keep one of them", 3, 1)


@pytest.mark.parametrize("text", ["5: a", "true: a", "null: a", "<<: {a: b}", "[a]: b", "{a: b}: c"])
def test_a_name_that_is_no_string_is_an_error(text: str) -> None:
    root, report = _root(text)

    assert read_fields(root, report, None, "spec") == {}
    assert _only(report)[0] is Code.WRONG_TYPE
    assert _only(report)[1].startswith("`a field name` wants a string, found ")


@pytest.mark.parametrize(("text", "names"), [("80: a", ["80"]), ("'80': a", ["80"]), ("0x50: a", ["0x50"])])
def test_a_number_may_be_a_name_where_kubernetes_takes_it(text: str, names: list[str]) -> None:
    root, report = _root(text)

    assert list(read_fields(root, report, None, "ports", numeric=True)) == names
    assert report.problems == []


def test_a_number_and_its_text_are_one_name() -> None:
    root, report = _root("80: a\n'80': b\n")

    assert list(read_fields(root, report, None, "ports", numeric=True)) == ["80"]
    assert _only(report)[0] is Code.DUPLICATE_KEY


def test_only_numbers_are_taken_beside_strings() -> None:
    root, report = _root("80.5: a")

    assert read_fields(root, report, None, "ports", numeric=True) == {}
    assert _only(report)[0] is Code.WRONG_TYPE


@pytest.mark.parametrize(("text", "found"), [("a", "a string"), ("[]", "a list"), ("5", "a number")])
def test_what_is_no_object_has_no_fields(text: str, found: str) -> None:
    root, report = _root(text)

    assert read_fields(root, report, None, "spec") == {}
    assert _only(report)[:2] == (Code.WRONG_TYPE, f"`spec` wants an object, found {found}")


def test_a_map_of_strings_drops_and_reports_what_is_none() -> None:
    root, report = _root("app: shop\nversion: 2\n")

    assert read_string_map(root, report, "labels") == {"app": "shop"}
    assert _only(report)[1] == "`labels.version` wants a string, found a number"


def test_null_is_absent() -> None:
    assert is_null(None)
    assert is_null(_root("null")[0])
    assert not is_null(_root("'null'")[0])
    assert not is_null(_root("[]")[0])


# --- places -----------------------------------------------------------------------------------------------------------


def test_a_problem_carries_its_line_and_its_severity() -> None:
    report = _report("first\n\tsecond\n")

    report.error(Position("f.yaml", 2, 3), Code.SYNTAX, "wrong", "do this")
    report.warning(Position("f.yaml", 1, 1), Code.INVALID_VALUE, "odd")
    report.error(Position("f.yaml", 9, 1), Code.SYNTAX, "past the end")

    assert [problem.severity for problem in report.problems] == [Severity.ERROR, Severity.WARNING, Severity.ERROR]
    assert [problem.snippet for problem in report.problems] == [" second", "first", ""]
    assert [problem.help for problem in report.problems] == ["do this", "", ""]
    assert report.problems[0].render() == "f.yaml:2:3: error[CS0001]: wrong\n     second\n      ^\n    help: do this"


def test_of_a_long_line_the_beginning_is_shown() -> None:
    report = _report("x" * 300)

    report.error(Position("f.yaml", 1, 1), Code.SYNTAX, "wrong")

    assert report.problems[0].snippet == "x" * 200


def test_a_node_is_cited_as_file_and_line() -> None:
    root, report = _root("\n\na: 1")

    assert report.source(root) == "f.yaml:3"
    assert str(report.position(root)) == "f.yaml:3:1"
