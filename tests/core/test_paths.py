"""A path has one meaning, or up to three, or none: as sent, normalised in two ways, refused."""

import pytest
from countersign.core.paths import PathError, meanings, normalise, readings, refuse_unacceptable, without_query

from tests.support import vectors


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/a", "/a"),
        ("/a?b", "/a"),
        ("/a?", "/a"),
        ("/a#b", "/a"),
        ("/a#?b", "/a"),
        ("/a?b#c", "/a"),
        ("/a%3Fb%23c", "/a%3Fb%23c"),
        ("?a", ""),
        ("", ""),
    ],
)
def test_the_query_and_the_fragment_are_no_part_of_the_path(path: str, expected: str) -> None:
    assert without_query(path) == expected


@pytest.mark.parametrize("path", ["/a?b=/../c", "/a/../b;c//d?e", "/a#b", "*"])
def test_a_request_means_what_its_path_without_the_query_is_read_as(path: str) -> None:
    assert meanings(path) == readings(without_query(path))


@pytest.mark.parametrize("path", ["", "?a=/b", "#/b"])
def test_a_request_for_no_path_means_none(path: str) -> None:
    assert meanings(path) == ()


@pytest.mark.parametrize("path", ["", "*", "/", "/a", "/a/b/", "/a%20b", "/a%2Fb", "/~!$&'()*+,;=:@-._", '/<>"^`{|}[]'])
def test_printable_ascii_with_sound_escapes_passes(path: str) -> None:
    refuse_unacceptable(path)


@pytest.mark.parametrize("path", ["/a?\x00", "/a?100%", "/a?é", "?"])
def test_what_follows_the_question_mark_is_not_judged(path: str) -> None:
    refuse_unacceptable(path)


@pytest.mark.parametrize(
    "path",
    [
        "a",
        "**",
        "*/a",
        "http://h/a",
        "http:a",
        "/a b",
        "/a\t",
        "/a\n",
        "/\x01a",
        "/a\x7f",
        "/a\x00",
        "/a%00",
        "/a%",
        "/a%4",
        "/a%zz",
        "/a%4g",
        "/é",
        "/\uff41",
        "/a\u2028",
        "/a\udcff",
    ],
)
def test_a_path_that_no_client_sends_is_refused(path: str) -> None:
    with pytest.raises(PathError):
        refuse_unacceptable(path)


@pytest.mark.parametrize(
    "path", ["", "/", "/a", "/a/", "/a/b.c/d", "/a%20b", "/a%3bb", "/.well-known/x", "/a/..b", "*"]
)
def test_an_ordinary_path_has_one_reading(path: str) -> None:
    assert readings(path) == (path,)


@pytest.mark.parametrize(
    ("path", "normal"),
    [
        ("/x/../admin", "/admin"),
        ("/../admin", "/admin"),
        ("/x/../../admin", "/admin"),
        ("/./admin", "/admin"),
        ("/admin/.", "/admin/"),
        ("/admin/x/..", "/admin/"),
        ("/..", "/"),
        ("/.", "/"),
        ("/x/./../admin/.y", "/admin/.y"),
        ("/%61dmin", "/admin"),
        ("/%41%5a%5f%7e%7A%2d%30%39", "/AZ_~z-09"),
        ("/x/%2e%2e/admin", "/admin"),
        ("/x/.%2E/admin", "/admin"),
        ("/x/..%2Fadmin", "/admin"),
        ("/x/..\\admin", "/admin"),
        ("/admin;x", "/admin"),
        ("/admin;", "/admin"),
        ("/admin;a=b/c;d", "/admin/c"),
        ("/x/..;/admin", "/admin"),
        ("/x/..;y=z/admin", "/admin"),
        ("/.;/admin", "/admin"),
    ],
)
def test_a_path_with_a_trick_has_a_second_reading(path: str, normal: str) -> None:
    assert readings(path) == (path, normal)
    assert normalise(normal) == normal


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("//admin", {"//admin", "/admin"}),
        ("///admin//x", {"///admin//x", "/admin/x"}),
        ("/admin//", {"/admin//", "/admin/"}),
        ("/%2fadmin", {"/%2fadmin", "//admin", "/admin"}),
        ("/\\admin", {"/\\admin", "//admin", "/admin"}),
        ("/%5Cadmin", {"/%5Cadmin", "//admin", "/admin"}),
        ("/;x/admin", {"/;x/admin", "//admin", "/admin"}),
        ("/a//../admin", {"/a//../admin", "/admin", "/a/admin"}),
        ("/a/x//../../admin", {"/a/x//../../admin", "/admin", "/a/admin"}),
        ("/a/%2f../admin", {"/a/%2f../admin", "/admin", "/a/admin"}),
        ("/a/;/../admin", {"/a/;/../admin", "/admin", "/a/admin"}),
        ("//..", {"//..", "/"}),
    ],
)
def test_an_empty_segment_may_count_or_not(path: str, expected: set[str]) -> None:
    """RFC 3986 5.2.4 lets ``..`` remove an empty segment; a server that merges slashes first does not see one."""
    found = readings(path)

    assert set(found) == expected
    assert len(found) == len(expected)
    assert found[0] == path


@pytest.mark.parametrize(
    "escape", ["%20", "%3b", "%3F", "%23", "%25", "%40", "%5b", "%5e", "%60", "%7b", "%7f", "%c3%a9", "%2b"]
)
def test_an_escape_of_anything_but_unreserved_characters_and_slashes_stays(escape: str) -> None:
    assert normalise(f"/a{escape}b") == f"/a{escape}b"


def test_a_path_is_decoded_once_only() -> None:
    assert normalise("/%2561dmin") == "/%2561dmin"
    assert normalise("/%252e%252e/admin") == "/%252e%252e/admin"


def test_normalisation_is_linear() -> None:
    for part in ("/..", "/%2e", ";", "//", "\\", "/a;b", "%2f"):
        assert len(normalise("/a" + part * 100_000)) <= 400_002


# Rows on which what we decide differs from the table, and why. (path table -> our normal form)
MERGED_AND_STRIPPED = {"/;/a": "/a"}  # the table strips parameters alone, we merge slashes as well


def test_the_published_cases_of_envoys_own_path_functions() -> None:
    tables = vectors.json_file("vectors/paths/envoy_path_cases.json")

    for case in tables["remove_query_and_fragment"]["cases"]:
        assert without_query(case["in"]) == case["out"]
    for case in tables["strip_path_parameters"]["cases"]:
        assert normalise(case["in"]) == MERGED_AND_STRIPPED.get(case["in"], case["out"])
    for case in tables["canonical"]["cases"]:
        if case["out"] is None:
            with pytest.raises(PathError):
                refuse_unacceptable(case["in"])
        elif case["in"].startswith("/") and "%2F" not in case["in"] and "%5c" not in case["in"]:
            assert (
                normalise(case["in"]) == case["out"]
            )  # we decode slashes, as a backend may; Envoy's function does not
    for case in tables["merge_slashes"]["cases"]:
        if case["in"].startswith("/"):
            assert normalise(without_query(case["in"])) == without_query(case["out"])


def test_a_path_is_never_read_as_an_authority() -> None:
    """CVE-2026-26205: a parser of URLs takes the first segment of //x/people for a host."""
    for case in vectors.json_file("vectors/paths/opa_envoy_parsed_path.json")["cases"]:
        path = case["path"]
        if "ours" in case:
            with pytest.raises(PathError):
                refuse_unacceptable(path)
            continue
        refuse_unacceptable(path)
        assert without_query(normalise(path)) == "/" + "/".join(case["segments"])
