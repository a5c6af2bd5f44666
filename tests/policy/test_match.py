"""How one value of a policy matches one value of a request."""

import itertools
import time
from collections.abc import Callable
from typing import Final

import pytest
from countersign.policy.match import (
    Outcome,
    address_readings,
    agree,
    both,
    either,
    expand_trust_domain,
    namespace,
    negate,
    network,
    present_or_wildcard,
    request_principal,
    wildcard,
    wildcards,
)

from tests.support import vectors

NO, MAYBE, YES = Outcome.NO_MATCH, Outcome.UNREADABLE, Outcome.MATCH


# --- three values -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("left", "right"), list(itertools.product(Outcome, repeat=2)))
def test_and_or_and_not_are_kleenes(left: Outcome, right: Outcome) -> None:
    if NO in (left, right):
        assert both([left, right]) is NO
    elif MAYBE in (left, right):
        assert both([left, right]) is MAYBE
    else:
        assert both([left, right]) is YES
    assert either([left, right]) is negate(both([negate(left), negate(right)]))


def test_not_of_what_cannot_be_read_cannot_be_read() -> None:
    assert [negate(outcome) for outcome in (NO, MAYBE, YES)] == [YES, MAYBE, NO]


def test_nothing_to_hold_holds_and_nothing_to_choose_from_does_not() -> None:
    assert both([]) is YES
    assert either([]) is NO


@pytest.mark.parametrize(
    ("readings", "outcome"),
    [([True], YES), ([False], NO), ([True, True], YES), ([False, False], NO), ([True, False], MAYBE), ([], MAYBE)],
)
def test_readings_that_disagree_cannot_be_read(readings: list[bool], outcome: Outcome) -> None:
    assert agree(readings) is outcome


# --- wildcards --------------------------------------------------------------------------------------------------------


PATTERNS: Final = ("", "*", "a", "ab", "a*", "*a", "*a*", "**", "a*b", "ba")


@pytest.mark.parametrize("patterns", [c for n in range(4) for c in itertools.combinations(PATTERNS, n)], ids=repr)
def test_several_wildcards_match_what_any_of_them_matches(patterns: tuple[str, ...]) -> None:
    texts = ("", "*", "a", "b", "ab", "ba", "aba", "a*", "*a", "a*b", "bb", "A")

    together = wildcards(patterns)

    assert [together(text) for text in texts] == [any(wildcard(each)(text) for each in patterns) for text in texts]


@pytest.mark.parametrize(
    ("pattern", "matches", "others"),
    [
        ("abc", ["abc"], ["", "ab", "abcd", "xabc", "ABC", "abc\n"]),
        ("abc*", ["abc", "abcd", "abc*", "abc\n"], ["", "ab", "xabc", "ABCd"]),
        ("*abc", ["abc", "xabc", "*abc", "\nabc"], ["", "bc", "abcd"]),
        ("*", ["a", "*", " ", "\n"], [""]),
        ("a*c", ["a*c"], ["abc", "ac"]),
        ("*a*", ["a*", "xa*"], ["a", "xax"]),
        ("**", ["*", "a*"], ["", "a"]),
        ("a.c", ["a.c"], ["abc"]),
        ("a+", ["a+"], ["aa"]),
        ("(a", ["(a"], ["a"]),
        ("[a]", ["[a]"], ["a"]),
        ("\\d", ["\\d"], ["1"]),
        ("$*", ["$", "$a"], ["", "a"]),
        ("*.b", [".b", "a.b"], ["b", "axb", "b.b.c"]),
    ],
)
def test_a_star_counts_alone_first_or_last_and_everything_else_is_itself(
    pattern: str, matches: list[str], others: list[str]
) -> None:
    test = wildcard(pattern)

    assert [text for text in matches if not test(text)] == []
    assert [text for text in others if test(text)] == []
    if pattern != "*":
        assert all(present_or_wildcard(pattern)(text) == test(text) for text in matches + others)


def test_a_header_is_present_even_if_it_is_empty() -> None:
    assert present_or_wildcard("*")("")
    assert not wildcard("*")("")


# --- peers ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "principal", "matches"),
    [
        ("a", "spiffe://td/ns/a/sa/b", True),
        ("a", "spiffe://other/ns/a/sa/b", True),
        ("a", "spiffe://td/ns/ab/sa/b", False),
        ("a", "spiffe://td/ns/a", False),
        ("a", "spiffe://td/x/ns/a/y", True),  # Istio's regular expression is not anchored to the first segment
        ("a*", "spiffe://td/ns/ab/sa/c", True),
        ("*b", "spiffe://td/ns/ab/sa/c", True),
        ("a*c", "spiffe://td/ns/abc/sa/d", True),
        ("a*c", "spiffe://td/ns/ab/sa/d", False),
        ("*", "spiffe://td/ns/a/sa/b", True),
        ("*", "spiffe://td/a", False),
        ("a.b", "spiffe://td/ns/axb/sa/c", False),
        ("a.b", "spiffe://td/ns/a.b/sa/c", True),
        ("sa", "spiffe://td/ns/a/sa/ns/sa/x", True),
    ],
)
def test_a_namespace_stands_after_ns_and_before_a_slash(pattern: str, principal: str, *, matches: bool) -> None:
    assert namespace(pattern)(principal) is matches


def test_stars_of_a_namespace_cost_no_backtracking() -> None:
    started = time.perf_counter()

    assert not namespace("*a" * 20 + "b")("spiffe://td/ns/" + "a" * 2000 + "/sa/x")
    assert time.perf_counter() - started < 2  # a regular expression would never end


LOCAL = ("td1", "td2", "cluster.local")


@pytest.mark.parametrize(
    ("principal", "domains", "expected"),
    [
        ("td1/ns/a/sa/b", ("td1",), ("td1/ns/a/sa/b",)),
        ("td2/ns/a/sa/b", LOCAL, ("td1/ns/a/sa/b", "td2/ns/a/sa/b", "cluster.local/ns/a/sa/b")),
        ("cluster.local/ns/a/sa/b", ("td1", "td2"), ("td1/ns/a/sa/b", "td2/ns/a/sa/b")),
        ("other/ns/a/sa/b", LOCAL, ("other/ns/a/sa/b",)),
        ("td*/ns/a/sa/b", ("td1", "td2"), ("td1/ns/a/sa/b", "td2/ns/a/sa/b")),
        ("*1/ns/a/sa/b", ("td1", "td2"), ("*1/ns/a/sa/b", "td2/ns/a/sa/b")),
        ("*x/ns/a/sa/b", ("td1", "td2"), ("*x/ns/a/sa/b",)),
        ("*/ns/a/sa/b", LOCAL, ("*/ns/a/sa/b",)),
        ("*", LOCAL, ("*",)),
        ("td1/*", LOCAL, ("td1/*",)),
        ("td1/ns/a/sa/b/c", LOCAL, ("td1/ns/a/sa/b/c",)),
        ("td1/x/a/y/b", LOCAL, ("td1/x/a/y/b", "td2/x/a/y/b", "cluster.local/x/a/y/b")),
    ],
)
def test_a_principal_of_the_local_mesh_is_meant_in_each_of_its_trust_domains(
    principal: str, domains: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    assert expand_trust_domain(principal, domains) == expected


def test_the_published_trust_domain_aliases_of_istio() -> None:
    for case in vectors.yaml_file("istio/unit-cases.yaml")["trust_domain_alias_expansion"]:
        domains = (case["trustDomain"], *case["trustDomainAliases"])
        found = [name for principal in case["principals"] for name in expand_trust_domain(principal, domains)]
        assert found == case["expect"], case["name"]


# --- users ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "matches", "others"),
    [
        ("*", [("i", "s")], [("", "s"), ("i", ""), ("", "")]),
        ("i/s", [("i", "s")], [("i", "x"), ("x", "s"), ("i/s", ""), ("", "s")]),
        ("https://i/s", [("https://i", "s")], [("https:", "/i/s"), ("https:/", "i/s")]),
        ("https://i/a/s", [("https://i/a", "s")], [("https://i", "a/s")]),
        ("i/*", [("i", "s"), ("i", "*")], [("i", ""), ("x", "s")]),
        ("i/s*", [("i", "s"), ("i", "st")], [("i", "xs"), ("i", "")]),
        ("i/*s", [("i", "*s")], [("i", "s"), ("i", "xs")]),
        ("i/*s*", [("i", "*s"), ("i", "*st")], [("i", "s"), ("i", "xs*")]),
        ("i/**", [("i", "*"), ("i", "*s")], [("i", "s"), ("i", "")]),
        ("i*/s", [("i*", "s")], [("i", "s"), ("ix", "s")]),
        ("i*/s*", [("i*", "s"), ("i*", "st")], [("i", "s"), ("ix", "s")]),
        ("*/*", [("i", "*")], [("i", "s"), ("", "*")]),
        ("*/s*", [("i", "s*")], [("i", "s"), ("i", "st")]),
        ("*/*s", [("i", "*s")], [("i", "s")]),
        ("*i/s*", [("xi", "s*")], [("xi", "s"), ("xi", "st")]),
        ("**/s", [("i*", "s")], [("i", "s")]),
        ("*/", [("i", "")], [("i", "s"), ("", "")]),
        ("i**", [("i*", "s"), ("i*x", "s")], [("i", "s")]),
        ("/", [("", "")], [("i", ""), ("", "s")]),
        ("*/s", [("i", "s")], [("", "s"), ("i", "x")]),
        ("*i/s", [("xi", "s"), ("i", "s")], [("ix", "s"), ("", "s")]),
        ("i*", [("i", "s"), ("ix", "s")], [("i", ""), ("x", "s")]),
        ("*s", [("i", "s"), ("i", "xs")], [("", "s"), ("i", "sx")]),
        ("*s*", [("i", "s*")], [("i", "s")]),
        ("i", [("i", "")], [("i", "s"), ("ix", "")]),
        ("https://idp*", [("https:/", "idp1")], [("https://idp", "s")]),
        ("i/", [("i", "")], [("i", "s")]),
        ("/s", [("", "s")], [("i", "s")]),
    ],
)
def test_issuer_and_subject_are_cut_at_the_last_slash(
    pattern: str, matches: list[tuple[str, str]], others: list[tuple[str, str]]
) -> None:
    test = request_principal(pattern)

    assert [claims for claims in matches if not test(claims)] == []
    assert [claims for claims in others if test(claims)] == []


def test_the_published_request_principal_patterns_of_istio() -> None:
    probes = ["", "foo", "bar", "foobar", "barfoo", "x", "xfoo", "foox", "barx"]
    tests: dict[str, Callable[[str, str], bool]] = {
        "any": lambda _, text: bool(text),
        "exact": lambda value, text: text == value,
        "prefix": lambda value, text: text.startswith(value),
        "suffix": lambda value, text: text.endswith(value),
    }
    for case in vectors.yaml_file("istio/unit-cases.yaml")["request_principal_patterns"]:
        (iss, iss_value), (sub, sub_value) = (case[name].split(" ", 1) for name in ("iss", "sub"))
        for issuer, subject in itertools.product(probes, repeat=2):
            expected = tests[iss](iss_value, issuer) and tests[sub](sub_value, subject)
            assert request_principal(case["pattern"])((issuer, subject)) == expected, (case, issuer, subject)


# --- networks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["10.0.0.0/255.0.0.0", "10.0.0.0/08", "fe80::1%eth0", "10.0.0.0/"])
def test_a_netmask_and_a_zone_make_no_block(text: str) -> None:
    with pytest.raises(ValueError, match=r"^not an IP address or CIDR block$"):
        network(text)


@pytest.mark.parametrize(
    ("block", "address", "outcome"),
    [
        ("10.0.0.0/8", "10.1.2.3", YES),
        ("10.0.0.0/8", "11.1.2.3", NO),
        ("10.9.9.9/8", "10.1.2.3", YES),
        ("10.0.0.1", "10.0.0.1", YES),
        ("10.0.0.1", "10.0.0.2", NO),
        ("10.0.0.0/8", "::ffff:10.1.2.3", MAYBE),
        ("10.0.0.0/8", "::ffff:0a01:0203", MAYBE),
        ("10.0.0.0/8", "::ffff:11.1.2.3", NO),
        ("::ffff:0:0/96", "::ffff:10.1.2.3", MAYBE),
        ("::/0", "::ffff:10.1.2.3", MAYBE),
        ("0.0.0.0/0", "2001:db8::1", NO),
        ("::/0", "10.0.0.1", NO),
        ("::/0", "2001:db8::1", YES),
        ("fe80::/10", "fe80::1%eth0", YES),
        ("fe80::/10", "fec0::1%eth0", NO),
        ("2001:DB8::/32", "2001:db8::1", YES),
        ("10.0.0.0/8", "", MAYBE),
        ("10.0.0.0/8", "/run/app.sock", MAYBE),
        ("10.0.0.0/8", "10.0.0.256", MAYBE),
        ("10.0.0.0/8", "010.0.0.1", MAYBE),
        ("10.0.0.0/8", "10.0.0.1:80", MAYBE),
        ("10.0.0.0/8", "10.0.0.1/8", MAYBE),
        ("10.0.0.0/8", "%eth0", MAYBE),
        ("10.0.0.0/8", "10.0.0.1%eth0", YES),
    ],
)
def test_an_address_is_in_a_block_or_not_or_both_or_is_no_address(block: str, address: str, outcome: Outcome) -> None:
    try:
        found = agree(reading in network(block) for reading in address_readings(address))
    except ValueError:
        found = MAYBE
    assert found is outcome


@pytest.mark.parametrize(
    ("pattern", "principal", "matches"),
    [
        ("a*c", "spiffe://td/ns/abc/sa/x", True),
        ("a*c", "spiffe://td/ns/ac/sa/x", True),
        ("a*c", "spiffe://td/ns/c/ns/a/sa/x", False),
        ("a*b*c", "spiffe://td/ns/a1b2c/sa/x", True),
        ("a*b*c", "spiffe://td/ns/a1c2b/sa/x", False),
        ("aa*aa", "spiffe://td/ns/aaa/sa/x", False),
        ("a", "spiffe://td/ns/b/ns/a/x", True),
        ("a", "/ns/a/", True),
    ],
)
def test_the_parts_of_a_namespace_stand_in_order_and_apart(pattern: str, principal: str, matches: bool) -> None:
    assert namespace(pattern)(principal) is matches


@pytest.mark.parametrize(
    ("pattern", "subject", "matches"),
    [("i/abc*", "abcd", True), ("i/abc*", "abc", True), ("i/abc*", "abd", False), ("i/abc*", "a", False)],
)
def test_a_subjects_prefix_counts_to_its_last_character(pattern: str, subject: str, matches: bool) -> None:
    assert request_principal(pattern)(("i", subject)) is matches


def test_the_first_place_where_a_part_fits_leaves_most_room_for_the_next() -> None:
    assert namespace("a*c")("spiffe://td/ns/ac/ns/a/x")
    assert not namespace("a*c")("spiffe://td/ns/b/ns/a/x")
