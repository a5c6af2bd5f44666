"""The client's address, worked out again as Envoy works it out, or read where Envoy writes it."""

import pytest
from countersign.core.facts import Endpoint, RequestFacts
from countersign.core.posture import Posture
from countersign.core.remote_ip import remote_ip

from tests.support import vectors
from tests.support.requests import facts

PEER = "10.1.2.3"


def _xff(*lines: str) -> RequestFacts:
    return facts(*(("x-forwarded-for", line) for line in lines), source=PEER)


@pytest.mark.parametrize("lines", [(), ("1.2.3.4",), ("1.2.3.4, 5.6.7.8",), ("garbage",)])
def test_without_trusted_hops_it_is_the_connections_own(lines: tuple[str, ...]) -> None:
    for posture in Posture:
        assert remote_ip(_xff(*lines), 0, "", posture) == PEER


@pytest.mark.parametrize(
    ("lines", "hops", "expected"),
    [
        (("1.2.3.4, 10.1.2.3",), 1, "1.2.3.4"),
        (("6.6.6.6, 1.2.3.4, 10.1.2.3",), 1, "1.2.3.4"),
        (("6.6.6.6, 1.2.3.4, 10.1.2.3",), 2, "6.6.6.6"),
        (("6.6.6.6,1.2.3.4\t,10.1.2.3",), 1, "1.2.3.4"),
        (("6.6.6.6", "1.2.3.4", "10.1.2.3"), 1, "1.2.3.4"),
        (("6.6.6.6", "1.2.3.4, 10.1.2.3"), 2, "6.6.6.6"),
        (("2001:db8::1, 10.1.2.3",), 1, "2001:db8::1"),
    ],
)
def test_an_entry_is_counted_from_the_right_as_each_proxy_appends_one(
    lines: tuple[str, ...], hops: int, expected: str
) -> None:
    for posture in Posture:
        assert remote_ip(_xff(*lines), hops, "", posture) == expected


@pytest.mark.parametrize(("lines", "hops"), [((), 1), (("10.1.2.3",), 1), (("1.2.3.4, 10.1.2.3",), 2), ((), 9)])
def test_fewer_entries_than_hops_is_the_connections_own(lines: tuple[str, ...], hops: int) -> None:
    for posture in Posture:
        assert remote_ip(_xff(*lines), hops, "", posture) == PEER


@pytest.mark.parametrize("entry", ["garbage", "", "1.2.3.4:5555", "[::1]", "1.2.3", "01.2.3.4", "unknown", "1.2.3.4 x"])
def test_an_entry_that_is_no_address_stays_unreadable_in_strict_and_is_the_connections_own_in_istio(entry: str) -> None:
    """Envoy: getLastAddressFromXFF gives nothing, and the connection's address takes its place."""
    request = _xff(f"1.2.3.4, {entry}, 10.1.2.3")

    assert remote_ip(request, 1, "", Posture.STRICT) == entry
    assert remote_ip(request, 1, "", Posture.ISTIO) == PEER
    assert remote_ip(request, 2, "", Posture.ISTIO) == "1.2.3.4"


@pytest.mark.parametrize(
    ("lines", "strict", "istio"),
    [
        (("1.2.3.4",), "1.2.3.4", "1.2.3.4"),
        ((" 1.2.3.4 ",), "1.2.3.4", "1.2.3.4"),
        (("2001:db8::1",), "2001:db8::1", "2001:db8::1"),
        ((), "", PEER),
        (("",), "", PEER),
        (("garbage",), "garbage", PEER),
        (("1.2.3.4:5555",), "1.2.3.4:5555", PEER),
        (("1.2.3.4, 5.6.7.8",), "1.2.3.4, 5.6.7.8", PEER),
        (("1.2.3.4", "1.2.3.4"), "", "1.2.3.4"),
        (("1.2.3.4", "5.6.7.8"), "", "1.2.3.4"),
        (("garbage", "5.6.7.8"), "", PEER),
    ],
)
def test_a_header_of_envoys_own_is_there_once_in_strict_and_read_as_envoy_reads_it_in_istio(
    lines: tuple[str, ...], strict: str, istio: str
) -> None:
    """Envoy: CustomHeaderIPDetection takes the first line, and without an address there the connection's stands."""
    request = facts(*(("x-client", line) for line in lines), ("x-forwarded-for", "9.9.9.9, 8.8.8.8"), source=PEER)

    assert remote_ip(request, 0, "x-client", Posture.STRICT) == strict
    assert remote_ip(request, 0, "x-client", Posture.ISTIO) == istio


def test_a_connection_without_http_has_its_own_address_alone() -> None:
    tcp = RequestFacts(http=None, source=Endpoint(address=PEER), destination=Endpoint())

    for posture in Posture:
        assert remote_ip(tcp, 1, "", posture) == PEER
        assert remote_ip(tcp, 0, "x-client", posture) == PEER


def test_the_published_attacks_by_forwarded_addresses() -> None:
    """The rows give x-forwarded-for as it reaches Envoy, which appends its own peer before it asks us."""
    cases = vectors.json_file("vectors/requests/authz_request_attacks.json")["cases"]
    rows = [case["request"] for case in cases if case["category"] == "remote_ip"]
    found = [
        remote_ip(
            facts(("x-forwarded-for", f"{row['xff']}, {row['source_ip']}"), source=row["source_ip"]),
            row["trusted_hops"],
            "",
            Posture.STRICT,
        )
        for row in rows
    ]

    assert found == ["9.9.9.9", "1.2.3.4", "1.2.3.4", "", "1.2.3.4:5555", "garbage"]
