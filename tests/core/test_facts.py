"""Header lines keep their order, their case and their bytes."""

import time
from dataclasses import fields

import pytest
from countersign.core.facts import Endpoint, Headers, HttpRequest, RequestFacts, is_readable


def test_names_are_folded_and_lines_keep_their_order() -> None:
    found = Headers.of([("X-Role", "user"), (":path", "/"), ("x-role", "ADMIN"), ("x-ROLE", "user")])

    assert found.values("x-role") == ("user", "ADMIN", "user")
    assert list(found.names()) == ["x-role", ":path"]
    assert len(found) == 2


def test_an_absent_header_has_no_lines_and_an_empty_one_has_one() -> None:
    found = Headers.of([("x-empty", "")])

    assert found.values("x-none") == ()
    assert found.values("x-empty") == ("",)


def test_a_header_may_have_very_many_lines() -> None:
    """A check of 4 MiB holds as many; the work must not grow with their square."""
    started = time.perf_counter()
    found = Headers.of([("x-a", str(number)) for number in range(200_000)])

    assert found.values("x-a")[-1] == "199999"
    assert len(found.values("x-a")) == 200_000
    assert time.perf_counter() - started < 10  # the square would take minutes


@pytest.mark.parametrize("joined", [True, False])
def test_headers_remember_whether_envoy_joined_them(*, joined: bool) -> None:
    assert Headers.of([("a", "b")], joined=joined).joined is joined
    assert not Headers({"a": ("b",)}).joined


@pytest.mark.parametrize(
    ("octets", "readable"),
    [
        (b"", True),
        (b"admin", True),
        ("é€\U0001f600".encode(), True),
        (b"admin\xff", False),
        (b"\xed\xa0\x80", False),  # a surrogate, encoded as UTF-8 forbids
        (b"\x80", False),
    ],
)
def test_only_utf_8_is_readable(octets: bytes, *, readable: bool) -> None:
    assert is_readable(octets.decode("utf-8", "surrogateescape")) is readable


def test_changed_headers_have_the_new_lines_and_no_removed_ones_and_the_rest_as_before() -> None:
    before = Headers.of([("a", "1"), ("b", "2"), ("b", "3"), ("c", "4")], joined=True)

    after = before.changed({"b": (), "c": ("5", "6"), "d": ("7",), "e": ()})

    assert [after.values(name) for name in "abcdef"] == [("1",), (), ("5", "6"), ("7",), (), ()]
    assert (list(after.names()), len(after)) == (["a", "c", "d"], 3)
    assert after.joined
    assert before.values("b") == ("2", "3")


def test_facts_with_another_http_part_are_the_same_in_every_other_field() -> None:
    """One that is lost would hide what other filters or the connection say from a DENY."""
    http = HttpRequest(method="GET", path="/", host="h", headers=Headers.of([]))
    facts = RequestFacts(
        http=http,
        source=Endpoint(address="192.0.2.1"),
        destination=Endpoint(port=1),
        sni="a.example",
        context_extensions={"a": "b"},
        metadata={"a": {"b": "c"}},
    )
    default = RequestFacts(http=None, source=Endpoint(), destination=Endpoint())
    other = facts.with_http(HttpRequest(method="PUT", path="/", host="h", headers=Headers.of([])))

    assert other.http is not None
    assert other.http.method == "PUT"
    for each in fields(RequestFacts):
        assert getattr(facts, each.name) != getattr(default, each.name), "every field has a value of its own here"
        assert each.name == "http" or getattr(other, each.name) is getattr(facts, each.name)
