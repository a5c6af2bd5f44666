"""What an accepted request is given, and what is taken from it."""

import base64
import json
from typing import Any

import pytest
from countersign.core.decision import Mutations
from countersign.core.jwt_rule import ClaimToHeader, JwtRule
from countersign.tokens.jose import UnverifiedToken, parse
from countersign.tokens.locate import InCookie, InHeader, InParameter, Located
from countersign.tokens.output import accepted, anonymous, output_headers
from hypothesis import given
from hypothesis import strategies as st

from tests.tokens.material import encode, rule, segment

HEADER = Located("t", InHeader("authorization"))


def write(rules: list[JwtRule], by: JwtRule, tokens: list[tuple[Located, UnverifiedToken]]) -> Mutations:
    return accepted(rules, by, [(place, output_headers(by, token)) for place, token in tokens])


def token(**claims: Any) -> Any:
    return parse(f"{segment({'alg': 'RS256'})}.{segment(claims)}.AAAA")


def claim_header(claim: str = "c", **claims: Any) -> tuple[tuple[str, str], ...]:
    """The headers that a rule sets which copies one claim to x-c."""
    by = rule(output_claim_to_headers=(ClaimToHeader("x-c", claim),), forward_original_token=True)
    mutations = write([by], by, [(HEADER, token(**claims))])
    assert ("x-c" in mutations.remove_headers) is not bool(mutations.set_headers)
    return mutations.set_headers


def test_removes_the_header_that_the_token_came_from_unless_it_is_forwarded() -> None:
    for forward, removed in ((False, ("authorization",)), (True, ())):
        by = rule(forward_original_token=forward)
        assert write([by], by, [(HEADER, token())]) == Mutations(remove_headers=removed)


def test_removes_a_query_parameter_and_leaves_a_cookie() -> None:
    by = rule()
    places = [Located("t", InCookie("c")), Located("t", InParameter("p")), HEADER]

    assert write([by], by, [(place, token()) for place in places]) == Mutations(
        remove_headers=("authorization",), remove_query_parameters=("p",)
    )


def test_the_payload_header_is_the_segment_as_transmitted() -> None:
    by = rule(output_payload_to_header="x-payload", forward_original_token=True)
    raw = encode(b'{ "sub" : "\\u0061" }')
    spaced = parse(f"{segment({'alg': 'RS256'})}.{raw}.AAAA")

    assert write([by], by, [(HEADER, spaced)]) == Mutations(set_headers=(("x-payload", raw),))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("alice", "alice"),
        ("a b\tc", "a b\tc"),
        (True, "true"),
        (False, "false"),
        (0, "0"),
        (42, "42"),
        (9007199254740993, "9007199254740992"),
        (9999999999999999999, "10000000000000000000"),
        (-9007199254740993, "-9007199254740992.000000"),
        (18446744073709551615.0, "18446744073709551616.000000"),
        (42.0, "42"),
        (-0.0, "0"),
        (-1, "-1.000000"),
        (1.5, "1.500000"),
        (1e19, "10000000000000000000"),
        (1e20, "100000000000000000000.000000"),
        (0.0000001, "0.000000"),
        ([], base64.b64encode(b"[]").decode()),
        (["a", 1], base64.b64encode(b'["a",1]').decode()),
        ({"a": "\xe9"}, base64.b64encode('{"a":"é"}'.encode()).decode()),
    ],
)
def test_writes_a_claim_as_envoy_does(value: object, text: str) -> None:
    assert claim_header(c=value) == (("x-c", text),)


@pytest.mark.parametrize("value", [None, "", "a\r\nx-admin: 1", "a\nb", "a\0", "\x7f", "é", "a\u2028"])
def test_never_writes_what_is_no_header_value(value: object) -> None:
    assert claim_header(c=value) == ()


def test_walks_nested_claims_by_the_dots_of_their_path() -> None:
    claims = {"a": {"b": {"c": "x"}}, "a.b": "y", "l": ["z"]}

    assert claim_header("a.b.c", **claims) == (("x-c", "x"),)
    assert claim_header("a.b", **claims) == (("x-c", base64.b64encode(b'{"c":"x"}').decode()),)
    for missing in ("b", "a.b.c.d", "l.0", "a..b", ""):
        assert claim_header(missing, **claims) == ()


def test_a_claim_in_brackets_is_reached_by_its_whole_names() -> None:
    claims = {"a": {"b": "x"}, "a.b": "y", "https://c.example/d": {"e.f": ["z"]}, "[g": "w"}

    assert claim_header("[a.b]", **claims) == (("x-c", "y"),)
    assert claim_header("[a][b]", **claims) == (("x-c", "x"),)
    assert claim_header("[https://c.example/d][e.f]", **claims) == (("x-c", base64.b64encode(b'["z"]').decode()),)
    assert claim_header("[g", **claims) == (("x-c", "w"),)
    for missing in ("[a.b][c]", "[b]", "[]", "[a][]"):
        assert claim_header(missing, **claims) == ()


def test_writes_the_claim_before_its_words_were_split() -> None:
    assert claim_header("scope", scope="read  write") == (("x-c", "read  write"),)


def test_a_header_that_is_also_where_the_token_was_is_removed() -> None:
    """Envoy writes the claims and then removes the token."""
    by = rule(output_claim_to_headers=(ClaimToHeader("authorization", "sub"),))

    assert write([by], by, [(HEADER, token(sub="a"))]) == Mutations(remove_headers=("authorization",))


def test_several_tokens_of_one_rule_give_several_lines() -> None:
    by = rule(output_claim_to_headers=(ClaimToHeader("x-c", "sub"),))
    tokens = [(Located("t", InParameter("p")), token(sub="b")), (HEADER, token(sub="a"))]

    assert write([by], by, tokens).set_headers == (("x-c", "b"), ("x-c", "a"))


def test_removes_every_output_header_of_any_rule_that_is_not_set() -> None:
    first = rule(output_payload_to_header="x-p", output_claim_to_headers=(ClaimToHeader("x-sub", "sub"),))
    second = rule(output_payload_to_header="x-q", output_claim_to_headers=(ClaimToHeader("x-sub", "name"),))
    other = rule(output_claim_to_headers=(ClaimToHeader("x-missing", "missing"),))
    rules = [first, second, other]

    assert anonymous(rules) == Mutations(remove_headers=("x-missing", "x-p", "x-q", "x-sub"))
    assert write(rules, first, [(HEADER, token(sub="a"))]) == Mutations(
        set_headers=(("x-p", segment({"sub": "a"})), ("x-sub", "a")),
        remove_headers=("authorization", "x-missing", "x-q"),
    )
    assert anonymous([]) == Mutations()


@given(st.recursive(st.none() | st.booleans() | st.integers(0, 10**18) | st.text(), st.lists).map(json.dumps))
def test_whatever_the_claim_a_line_never_ends(text: str) -> None:
    for _, value in claim_header(c=json.loads(text)):
        assert value.isascii()
        assert value.replace("\t", " ").isprintable()
