"""Readiness in words: which of its checks keep requests away, and how each is told."""

from countersign.edge.readiness import Check, not_ready, verbose

FINE = Check("policies")
WRONG = Check("keys of https://a.test", "fetching keys from https://a.test")
TOLD = Check("keys of https://b.test", "status 500", counts=False)


def test_only_what_is_wrong_and_counts_keeps_requests_away() -> None:
    assert not_ready(()) == ""
    assert not_ready((FINE, TOLD)) == ""
    assert not_ready((FINE, TOLD, WRONG)) == "fetching keys from https://a.test"
    assert not_ready((WRONG, Check("shutdown", "stopping"))) == "fetching keys from https://a.test; stopping"


def test_every_check_has_a_line_and_the_last_says_what_comes_of_them() -> None:
    assert verbose((FINE, TOLD), "readyz") == (
        "[+]policies ok\n[!]keys of https://b.test: status 500\nreadyz check passed"
    )
    assert verbose((FINE, WRONG), "readyz") == (
        "[+]policies ok\n[-]keys of https://a.test failed: fetching keys from https://a.test\nreadyz check failed"
    )
