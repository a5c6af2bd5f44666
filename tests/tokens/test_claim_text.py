"""Claims as Envoy writes them; `test_against_envoy` holds the same against Envoy itself."""

import base64
import json
import math

import pytest
from countersign.tokens.claim_text import claim_text
from hypothesis import given
from hypothesis import strategies as st

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("a.<\xe9", max_size=3), inner, max_size=4),
    max_leaves=10,
)  # fmt: skip


def written(value: object) -> str:
    return base64.b64decode(claim_text(value), validate=True).decode()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([], "[]"),
        ({}, "{}"),
        ([True, False, None, [{}]], "[true,false,null,[{}]]"),
        ([0, -1, 1.0, -0.0, 1e5], "[0,-1,1,-0,100000]"),
        ([10**15, 123456789012345678, 1e100], "[1e+15,1.2345678901234568e+17,1e+100]"),
        ([0.1, 3.141592653589793, 5e-324, 1e-5], "[0.1,3.1415926535897931,4.94065645841247e-324,1e-05]"),
        (["<b>", "a/b", "'&"], '["\\u003cb\\u003e","a/b","\'&"]'),
        (["\u2028\u202e\x7f\xad\x00", '\n\\"'], '["\\u2028\\u202e\\u007f\\u00ad\\u0000","\\n\\\\\\""]'),
        (["\xe9\u061c\U0001f600\U000e0001"], '["\xe9\u061c\U0001f600\\udb40\\udc01"]'),
        ({"<": 1, "b": [2]}, '{"\\u003c":1,"b":[2]}'),
    ],
)
def test_lists_and_objects_are_protobufs_json(value: object, text: str) -> None:
    assert written(value) == text


@given(JSON.map(lambda value: [value]))
def test_what_is_written_reads_back_with_numbers_as_doubles(value: object) -> None:
    assert json.loads(written(value), parse_int=float) == json.loads(json.dumps(value), parse_int=float)


@given(st.floats(0, 1e25).map(math.floor) | st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_is_whole_or_has_six_decimals(value: float) -> None:
    text = claim_text(value)

    assert float(text) == pytest.approx(value, abs=5e-7)
    assert ("." in text) is not (float(value).is_integer() and 0 <= float(value) < 2**64)
