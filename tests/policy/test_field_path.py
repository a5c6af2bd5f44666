"""Positions as paths of fields."""

import json

import pytest
from countersign.policy.reading.field_path import field_path

TEXT = json.dumps({"a": {"b-c": [{"d": 1}, [2]], "x.y/z": "v"}}, indent=1)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ('"a"', "a"),
        ('"b-c"', "a.b-c"),
        ('"d"', "a.b-c[0].d"),
        ("1", "a.b-c[0].d"),
        ("2", "a.b-c[1][0]"),
        ('"x.y/z"', "a[x.y/z]"),
        ('"v"', "a[x.y/z]"),
        ("{", ""),
    ],
)
def test_a_position_is_told_as_the_field_that_begins_there(found: str, expected: str) -> None:
    (line, column), *_ = [
        (number, text.index(found) + 1) for number, text in enumerate(TEXT.splitlines(), 1) if found in text
    ]

    assert field_path(TEXT, line, column) == expected


@pytest.mark.parametrize("text", ["", "[", "- a\n--- b", TEXT])
def test_where_nothing_begins_there_is_no_path(text: str) -> None:
    assert field_path(text, 99, 99) == ""
