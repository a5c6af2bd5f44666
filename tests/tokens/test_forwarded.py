"""What policies look at is the request as it goes on, not as the client wrote it."""

import pytest
from countersign.core.decision import Mutations
from countersign.core.facts import Headers, HttpRequest
from countersign.tokens.forwarded import forwarded


def _request(path: str = "/", *headers: tuple[str, str]) -> HttpRequest:
    return HttpRequest(method="GET", path=path, host="shop", headers=Headers.of(((":path", path), *headers)))


def test_a_request_that_nothing_changes_is_itself() -> None:
    request = _request("/?a=b", ("x-user", "alice"))

    assert forwarded(request, Mutations()) is request


def test_a_header_that_is_set_replaces_every_line_of_the_client() -> None:
    request = _request("/", ("x-user", "admin"), ("X-User", "root"), ("x-other", "1"))

    seen = forwarded(request, Mutations(set_headers=(("x-user", "alice"), ("x-user", "bob")))).headers

    assert seen.values("x-user") == ("alice", "bob")
    assert seen.values("x-other") == ("1",)


def test_a_header_that_is_removed_is_absent() -> None:
    seen = forwarded(_request("/", ("authorization", "Bearer x")), Mutations(remove_headers=("authorization",)))

    assert seen.headers.values("authorization") == ()
    assert seen.headers.values(":path") == ("/",)


@pytest.mark.parametrize(
    ("path", "left"),
    [
        ("/a?token=x", "/a"),
        ("/a?b=c&token=x&d", "/a?b=c&d"),
        ("/a?%74oken=x&b=c", "/a?b=c"),
        ("/a?token=x&token=y", "/a"),
        ("/a?tokens=x", "/a?tokens=x"),
        ("/token=x", "/token=x"),
    ],
)
def test_a_parameter_that_is_removed_is_not_in_the_path(path: str, left: str) -> None:
    seen = forwarded(_request(path), Mutations(remove_query_parameters=("token",)))

    assert seen.path == left
    assert seen.headers.values(":path") == (left,)


def test_headers_that_envoy_has_joined_stay_known_as_joined() -> None:
    request = HttpRequest(method="GET", path="/", host="", headers=Headers.of([("a", "b")], joined=True))

    assert forwarded(request, Mutations(remove_headers=("c",))).headers.joined
