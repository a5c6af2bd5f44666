"""Path templates: ``{*}`` is one segment, ``{**}`` any number of them."""

import string
import time
from typing import Final

import pytest
from countersign.core.posture import Posture
from countersign.policy.match import Outcome
from countersign.policy.spec import evaluate
from countersign.policy.terms.templates import check_template, is_template, template

from tests.support import vectors
from tests.support.requests import authorization, evidence, facts, scoped

PCHAR: Final = string.ascii_letters + string.digits + "-._~%!$&'()+,;:@="


@pytest.mark.parametrize(
    ("value", "matches", "others"),
    [
        ("/foo/{*}", ["/foo/a", "/foo/a.b-c", "/foo/*", "/foo/%2f"], ["/foo", "/foo/", "/foo/a/", "/foo/a/b", "/a/b"]),
        ("/foo/{*}/bar", ["/foo/x/bar", "/foo/*/bar"], ["/foo//bar", "/foo/x/y/bar", "/foo/bar", "/foo/x/bar/"]),
        ("/{*}/{*}", ["/a/b"], ["/a", "/a/", "/a/b/c", "//b"]),
        ("/foo/{**}", ["/foo/", "/foo/a", "/foo/a/b", "/foo//", "/foo/a*b"], ["/foo", "/fooa", "/x/foo/a"]),
        ("/store/{**}/cart", ["/store//cart", "/store/a/cart", "/store/a/b/cart"], ["/store/cart", "/store/a/cart/x"]),
        ("/{*}/x/{**}", ["/a/x/", "/a/x/b/c"], ["/x/b", "/a/b/x/c", "/a/x"]),
        ("/{**}", ["/", "/a", "/a/b/"], ["", "a", "/?x"]),
        ("/a.b/{*}", ["/a.b/c"], ["/axb/c"]),
        ("/a(b)+/{*}", ["/a(b)+/c"], ["/ab/c", "/abb/c"]),
        ("/{*}/", ["/a/"], ["/a", "//"]),
        ("{*}/a", ["x/a"], ["/x/a"]),
    ],
)
def test_a_template_takes_a_whole_path(value: str, matches: list[str], others: list[str]) -> None:
    test = template(value)

    assert [path for path in matches if not test(path)] == []
    assert [path for path in others if test(path)] == []


def test_a_segment_is_made_of_the_characters_of_a_path_and_of_asterisks() -> None:
    """RFC 3986 pchar; ``*`` of a request counts since CVE-2025-46821."""
    one, many = template("/{*}"), template("/{**}")

    taken = {chr(code) for code in range(256) if one(f"/a{chr(code)}b")}

    assert taken == {*PCHAR, "*"}
    assert {chr(code) for code in range(256) if many(f"/a{chr(code)}b")} == {*taken, "/"}
    assert not one("/a\n")
    assert not many("/a\n")


@pytest.mark.parametrize("posture", Posture)
@pytest.mark.parametrize("path", ["/foo/*", "/foo/a", "/foo/a?b={", "/foo/a#/x"])
def test_paths_and_not_paths_take_templates_and_plain_values_side_by_side(path: str, posture: Posture) -> None:
    def outcome(field: str, values: str) -> Outcome:
        text = authorization(f"{{rules: [{{to: [{{operation: {{{field}: [{values}]}}}}]}}]}}")
        (trace,) = evaluate(scoped(text).http, evidence(facts(path=path), posture=posture)).rules
        return trace.outcome

    assert outcome("paths", "'/foo/{*}'") is Outcome.MATCH
    assert outcome("notPaths", "'/foo/{*}'") is Outcome.NO_MATCH
    assert outcome("paths", "/x, '/foo/{*}'") is Outcome.MATCH
    assert outcome("paths", "'/x/{*}', /foo/*") is Outcome.MATCH
    assert outcome("paths", "'/x/{*}', /x/*") is Outcome.NO_MATCH


@pytest.mark.parametrize("path", ["/foo//secret", "/foo/x/%2e%2e/secret", "/foo/;a/secret", "/foo\\x/secret"])
def test_a_template_is_asked_about_every_reading(path: str) -> None:
    text = authorization("{rules: [{to: [{operation: {paths: ['/foo/{*}/secret']}}]}]}")

    (strict,) = evaluate(scoped(text).http, evidence(facts(path=path))).rules
    (plain,) = evaluate(scoped(text).http, evidence(facts(path="/foo/x/secret"))).rules

    assert strict.outcome is not Outcome.MATCH
    assert plain.outcome is Outcome.MATCH


def test_a_template_takes_no_longer_than_its_path() -> None:
    test = template("/" + "{*}/" * 40 + "{**}/x")
    before = time.perf_counter()

    assert not test("/a" * 40_000 + "/y")
    assert time.perf_counter() - before < 1


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("/a/{b}", "`{` and `}` are for path templates, {*} and {**}"),
        ("/a/{", "`{` and `}` are for path templates, {*} and {**}"),
        ("/a/}", "`{` and `}` are for path templates, {*} and {**}"),
        ("/a{*}", "{*} and {**} stand for whole segments"),
        ("/{*}.m4s", "{*} and {**} stand for whole segments"),
        ("/{*}{*}", "{*} and {**} stand for whole segments"),
        ("/{*}/{b}", "{*} and {**} stand for whole segments"),
        ("/{*}/}", "{*} and {**} stand for whole segments"),
        ("/{**}/{*}", "nothing but literal segments may follow {**}"),
        ("/{**}/a/{**}", "nothing but literal segments may follow {**}"),
        ("/{*}/a*", "the segment `a*` has a character that a templated path may not have"),
        ("/{*}/a b", "the segment `a b` has a character that a templated path may not have"),
        ("/{*}/\u00e9", "the segment `\u00e9` has a character that a templated path may not have"),
    ],
)
def test_a_template_that_says_something_else_is_an_error(value: str, message: str) -> None:
    assert check_template(value) == message


@pytest.mark.parametrize("value", ["/{*}", "/{**}", "/a/{*}/b/{**}/c/d", "/{*}/{*}/{**}", "/{*}/a/", "/a", "a*", "//a"])
def test_a_sound_value_is_nothing_to_speak_of(value: str) -> None:
    assert check_template(value) == ""


@pytest.mark.parametrize("value", ["{*}", "{**}", "a/{*}", "{*}/a"])
def test_a_template_begins_with_a_slash_or_no_path_could_match_it(value: str) -> None:
    """Istio accepts it, and Envoy's process ends."""
    assert check_template(value) == "a template begins with `/`, as every path does"
    assert check_template(f"/{value}") == ""


@pytest.mark.parametrize("value", ["//{*}", "/a//{*}", "/{*}//a", "/{*}//"])
def test_a_template_has_no_empty_segment(value: str) -> None:
    """Istio refuses the second and the third, and for the others Envoy's process ends."""
    assert check_template(value) == "a templated path has no empty segment"
    assert check_template(value.replace("//", "/")) == ""


def test_the_published_detection_of_templates() -> None:
    for case in vectors.yaml_file("istio/unit-cases.yaml")["path_template_detection"]:
        assert is_template(case["path"]) is case["isPathTemplate"], case


def test_the_published_literals_of_templates() -> None:
    """A slash parts segments here, so that the row with one is two literals."""
    for case in vectors.yaml_file("istio/unit-cases.yaml")["path_template_literal"]:
        if case["name"] != "invalid - slash":
            assert (check_template(f"/{{*}}/{case['glob']}") == "") is case["expected"], case


@pytest.mark.parametrize("value", ["/a/{*}/{b", "/a/{*}/b}", "/{*}/{", "/{**}/}"])
def test_a_single_brace_in_a_template_is_an_error(value: str) -> None:
    assert check_template(value) == "{*} and {**} stand for whole segments"
    assert check_template("/a/{*}/b") == ""
