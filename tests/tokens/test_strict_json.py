"""JSON with one reading, or none."""

import contextlib
import json
from typing import Any

import pytest
from countersign.tokens.strict_json import MAX_DEPTH, MAX_ELEMENTS, MAX_MEMBERS, JsonError, loads
from hypothesis import given
from hypothesis import strategies as st

from tests.tokens.material import json_test_suite

NEARLY_ZERO = ("i_number_double_huge_neg_exp.json", "i_number_real_underflow.json")
TWICE = ("y_object_duplicated_key.json", "y_object_duplicated_key_and_value.json")  # valid, and with two readings
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**18), 10**18)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=5)
    ),
)


@given(JSON)
def test_reads_what_json_writes(value: Any) -> None:
    assert loads(json.dumps(value)) == value
    assert loads(json.dumps(value, ensure_ascii=False)) == value


@given(st.text() | JSON.map(json.dumps).flatmap(lambda text: st.integers(0, len(text)).map(lambda at: text[:at])))
def test_returns_or_raises_its_own_error(text: str) -> None:
    with contextlib.suppress(JsonError):
        loads(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "{",
        "{'a':1}",
        '{"a":1,}',
        '{"a":1}x',
        '{"a":1}//c',
        "\ufeff{}",
        '"\t"',
        "[" * 100_000,
        "01",
        "+1",
        ".5",
    ],
)
def test_refuses_what_is_not_json(text: str) -> None:
    with pytest.raises(JsonError, match="not JSON"):
        loads(text)


@pytest.mark.parametrize("text", ['{"a":1,"a":1}', r'{"a":1,"\u0061":2}', '{"r":{"a":1,"a":2}}', '[{"":0,"":0}]'])
def test_refuses_a_name_twice_at_any_depth(text: str) -> None:
    with pytest.raises(JsonError, match="a name twice"):
        loads(text)
    assert loads('{"a":1,"A":{"a":1}}') == {"a": 1, "A": {"a": 1}}


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", '{"x":NaN}'])
def test_refuses_numbers_that_json_does_not_have(text: str) -> None:
    with pytest.raises(JsonError, match="is not JSON"):
        loads(text)


@pytest.mark.parametrize("text", ["1e400", "-1e400", "[1.0e999]"])
def test_refuses_a_number_beyond_all_range(text: str) -> None:
    with pytest.raises(JsonError, match="beyond all range"):
        loads(text)
    assert loads("[1e308,-1.5]") == [1e308, -1.5]


def test_refuses_an_integer_of_twenty_digits() -> None:
    for digits in ("9" * 20, "-" + "9" * 20, "9" * 5000):
        with pytest.raises(JsonError, match="more than 19 digits"):
            loads(digits)
    assert loads("-" + "9" * 19) == -(10**19 - 1)


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_refuses_to_nest_deeper_than_its_bound(opening: str, closing: str) -> None:
    for inner in ("1", "[]"):
        deep = MAX_DEPTH - (inner == "[]")
        loads(opening * deep + inner + closing * deep)
        with pytest.raises(JsonError, match="nested deeper"):
            loads(opening * (deep + 1) + inner + closing * (deep + 1))


def test_counts_depth_and_not_brackets() -> None:
    assert loads("[" + ",".join(["[]"] * 100) + "]") == [[]] * 100


def test_refuses_an_array_that_is_too_long() -> None:
    assert len(loads(json.dumps([0] * MAX_ELEMENTS))) == MAX_ELEMENTS
    with pytest.raises(JsonError, match="more than 1024 elements"):
        loads(json.dumps({"a": [0] * (MAX_ELEMENTS + 1)}))


def test_refuses_an_object_with_too_many_members() -> None:
    assert len(loads(json.dumps({str(n): n for n in range(MAX_MEMBERS)}))) == MAX_MEMBERS
    with pytest.raises(JsonError, match="more than 256 members"):
        loads(json.dumps({str(n): n for n in range(MAX_MEMBERS + 1)}))


@pytest.mark.parametrize("text", [r'"\ud800"', r'{"\udfff":1}', r'["a",["\ud83d"]]', r'["\ud83d","\ude00"]'])
def test_refuses_half_of_a_surrogate_pair(text: str) -> None:
    with pytest.raises(JsonError, match="surrogate"):
        loads(text)
    assert loads(r'"\ud83d\ude00"') == "\U0001f600"


def test_agrees_with_the_json_test_suite() -> None:
    """y_ parses unless it has two readings, n_ does not; of the open i_ only what is nearly zero."""
    suite = json_test_suite()

    assert len(suite) == 318
    for name, octets in suite:
        try:
            loads(octets.decode())
            accepted = True
        except (JsonError, UnicodeDecodeError):
            accepted = False
        ours = name.startswith("y_") or name in NEARLY_ZERO
        assert accepted is (ours and name not in TWICE), name
