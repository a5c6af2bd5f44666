"""Tokens are found where Envoy finds them, and nowhere else."""

from typing import Any
from urllib.parse import quote

import pytest
from countersign.core.jwt_rule import HeaderLocation
from countersign.tokens.locate import InCookie, InHeader, InParameter, header_locations, locate
from hypothesis import given
from hypothesis import strategies as st

from tests.tokens.material import cases, request, rule

DEFAULT = rule()
WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=3)


def tokens(*headers: tuple[str, str], path: str = "/", **where: Any) -> list[str]:
    return [found.token for found in locate(request(*headers, path=path), rule(**where))]


def from_header(name: str, prefix: str = "") -> dict[str, Any]:
    return {"from_headers": (HeaderLocation(name, prefix),)}


def test_finds_nothing_where_there_is_nothing() -> None:
    assert locate(request(), DEFAULT) == ()
    assert locate(request(("x-token", "t"), ("cookie", "access_token=t"), path="/p?token=t"), DEFAULT) == ()


def test_looks_by_default_at_the_bearer_header_and_then_at_the_access_token_parameter() -> None:
    located = locate(request(("authorization", "Bearer t"), path="/?access_token=u"), DEFAULT)

    assert [(each.token, each.where) for each in located] == [
        ("t", InHeader("authorization")),
        ("u", InParameter("access_token")),
    ]


@pytest.mark.parametrize("where", [from_header("x"), {"from_params": ("p",)}, {"from_cookies": ("c",)}])
def test_any_location_of_its_own_ends_the_defaults(where: dict[str, Any]) -> None:
    assert tokens(("authorization", "Bearer t"), path="/?access_token=u", **where) == []


@pytest.mark.parametrize(
    "value", ["Basic dTpw", "bearer t", "BEARER t", "DPoP t", "Bearer", "Bearert", "Bearer\tt", ""]
)
def test_another_scheme_is_no_token(value: str) -> None:
    assert tokens(("authorization", value)) == []
    assert tokens(("authorization", "Bearer t")) == ["t"]


@pytest.mark.parametrize(
    ("value", "token"),
    [
        ("Bearer  t", "t"),
        ('Bearer "t"', 't"'),
        ("Bearer t u", "t u"),
        ("Negotiate x, Bearer t", "t"),
        ("Bearer A, Basic Zm9v", "A, Basic Zm9v"),
        ("Bearer t\0", "t\0"),
        ("Bearer ", "Bearer "),
        ("Bearer !!", "Bearer !!"),
        ("Bearer Bearer t", "Bearer t"),
    ],
)
def test_takes_what_follows_the_prefix_from_the_first_token_character_on(value: str, token: str) -> None:
    """The rest is never cut off, so that what is not a token fails instead of passing in part."""
    assert tokens(("authorization", value)) == [token]


def test_takes_the_whole_value_of_a_header_without_a_prefix() -> None:
    assert tokens(("x-token", " Bearer t"), **from_header("x-token")) == [" Bearer t"]
    assert tokens(("x-token", ""), **from_header("x-token")) == [""]


def test_takes_every_line_of_a_header() -> None:
    assert tokens(("x-token", "t"), ("x-token", "u"), **from_header("x-token")) == ["t", "u"]


def test_joins_the_lines_of_the_authorization_header_as_envoy_does() -> None:
    assert tokens(("authorization", "Bearer t"), ("authorization", "Bearer u")) == ["t,Bearer u"]
    assert tokens(("authorization", "Basic x"), ("authorization", "Bearer u")) == ["u"]


def test_overlapping_prefixes_each_see_their_own_rest() -> None:
    assert tokens(("h", "AAABBBt"), **from_header("h", "AAA")) == ["BBBt"]
    assert tokens(("h", "AAABBBt"), **from_header("h", "AAABBB")) == ["t"]


def test_orders_headers_by_name_and_prefix_then_parameters_then_cookies() -> None:
    http = request(("b", "1"), ("a", "Y 2"), ("a", "X 3"), ("cookie", "z=7; y=6"), path="/?q=5&p=4")
    everything = rule(
        from_headers=(HeaderLocation("b"), HeaderLocation("a", "Y "), HeaderLocation("a", "X "), HeaderLocation("b")),
        from_params=("q", "p", "q"),
        from_cookies=("z", "y", "z"),
    )

    assert [each.token for each in locate(http, everything)] == ["3", "2", "1", "4", "5", "6", "7"]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/?p=t", ["t"]),
        ("/?a=1&p=t&p=u", ["t"]),
        ("/?p", [""]),
        ("/?p=", [""]),
        ("/?&&p=t", ["t"]),
        ("/?p=a%2Eb%2Ec", ["a.b.c"]),
        ("/?%70=t", ["t"]),
        ("/?p=a+b", ["a+b"]),
        ("/?p=a=b", ["a=b"]),
        ("/?p=%zz", ["%zz"]),
        ("/x?y?p=t", []),
        ("/?x=1?p=t", []),
        ("/?pp=t", []),
        ("/?x=p", []),
        ("/?x=%70", []),
        ("/?P=t", []),
        ("/p=t", []),
        ("", []),
    ],
)
def test_takes_the_first_value_of_a_query_parameter_percent_decoded(path: str, found: list[str]) -> None:
    assert tokens(path=path, from_params=("p",)) == found


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (["c=t"], ["t"]),
        (["a=1; c=t; c=u"], ["t"]),
        (["a=1", "c=t"], ["t"]),
        (['c="t"'], ["t"]),
        (['c="'], ['"']),
        (["c="], [""]),
        (["c=a=b"], ["a=b"]),
        (["c=t "], ["t "]),
        (["c =t"], []),
        (["c"], []),
        (["C=t"], []),
        (["cc=t"], []),
        (["x=c"], []),
    ],
)
def test_takes_the_first_cookie_of_the_name(lines: list[str], found: list[str]) -> None:
    headers = [("cookie", line) for line in lines]

    assert tokens(*headers, from_cookies=("c",)) == found
    assert all(each.where == InCookie("c") for each in locate(request(*headers), rule(from_cookies=("c",))))


def test_says_at_which_headers_a_rule_looks() -> None:
    assert header_locations(DEFAULT) == (HeaderLocation("authorization", "Bearer "),)
    assert header_locations(rule(from_params=("p",))) == ()
    assert header_locations(rule(**from_header("x"))) == (HeaderLocation("x"),)


@given(st.text(), st.text(), st.text())
def test_any_request_has_an_answer(value: str, path: str, cookie: str) -> None:
    http = request(("authorization", value), ("h", value), ("cookie", cookie), path=path)
    everywhere = rule(from_headers=(HeaderLocation("h", "x"),), from_params=("p",), from_cookies=("c",))

    assert len(locate(http, DEFAULT)) <= 2
    assert len(locate(http, everywhere)) <= 3


def test_agrees_with_the_extraction_vectors_except_where_the_design_follows_envoy() -> None:
    """The design: `Bearer ` in exactly that case, tokens in queries as Istio has them, prefixes found anywhere.

    Rows that expect "reject" are judged in test_authenticate, where a token that is no token is refused.
    """
    differs = {
        "access_token param": ["jwt_token"],
        "authorization: 'bearer t'": [],
        "authorization: 'BEARER t'": [],
        "authorization: 'Bearer '": ["Bearer "],  # Envoy refuses it; HTTP has cut the space off before it arrives
        "authorization: 'Bearer t '": ["t "],  # likewise
        "prefix AAA and AAABBB both configured": [],
        "two issuers, two headers": [],
    }
    rows = cases("jwt/token_extraction_cases.json", "cases")
    for row in rows:
        expected = differs.get(row["name"], row["expect_tokens"])
        if expected != "reject":
            headers = [(name, value) for name, value in row["headers"]]
            assert tokens(*headers, path=row["path"]) == expected, row["name"]


def test_a_parameter_may_have_any_name() -> None:
    for name, written in {
        "a.b": "a.b",
        "\xe9": "%c3%A9",
        "a%": "a%25",
        "a[]": "a%5b%5D",
        "a|b": "a|b",
        "a b": "a%20b",
    }.items():
        assert tokens(path=f"/?{written}=t", from_params=(name,)) == ["t"]
    assert tokens(path="/?axb=t", from_params=("a.b",)) == []
    assert tokens(path="/?a&b=t", from_params=("a|b",)) == []


def test_tens_of_thousands_of_parameters_and_cookies_are_looked_through() -> None:
    assert locate(request(path="/?" + "%&" * 30_000), rule(from_params=("p",))) == ()
    assert tokens(path="/?" + "%70q&" * 12_000 + "p=t", from_params=("p",)) == ["t"]
    assert tokens(("cookie", "c;" * 30_000 + "c=t"), from_cookies=("c",)) == ["t"]


@given(st.lists(st.tuples(WORDS, WORDS), max_size=5), WORDS.filter(bool))
def test_agrees_with_splitting_and_decoding_every_pair(pairs: list[tuple[str, str]], name: str) -> None:
    query = "&".join(f"{quote(key, safe='')}={quote(value, safe='')}" for key, value in [*pairs, (name, "last")])
    expected = next(value for key, value in [*pairs, (name, "last")] if key == name)

    assert tokens(path=f"/?{query}", from_params=(name,)) == [expected]
