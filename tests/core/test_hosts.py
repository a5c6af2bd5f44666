"""A host may be written with a port, a trailing dot and any case, and means the same workload."""

import pytest
from countersign.core.hosts import HostError, fold, readings, refuse_unacceptable


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("shop.example", {"shop.example"}),
        ("shop.example:8443", {"shop.example:8443", "shop.example"}),
        ("shop.example:", {"shop.example:", "shop.example"}),
        ("shop.example.", {"shop.example.", "shop.example"}),
        (
            "shop.example.:8443",
            {"shop.example.:8443", "shop.example:8443", "shop.example.", "shop.example"},
        ),
        ("[2001:db8::1]", {"[2001:db8::1]"}),
        ("[2001:db8::1]:80", {"[2001:db8::1]:80", "[2001:db8::1]"}),
        ("", {""}),
        (".", {"."}),
        (":80", {":80"}),
        (".:80", {".:80", ".", ":80"}),
    ],
)
def test_a_host_is_read_as_sent_and_without_its_port_and_its_dot(host: str, expected: set[str]) -> None:
    found = readings(host)

    assert set(found) == expected
    assert len(found) == len(expected)
    assert found[0] == host


def test_case_is_folded_in_ascii_alone() -> None:
    assert fold("Shop.EXAMPLE") == "shop.example"
    assert fold("\u212aEY.\u0130") == "\u212aey.\u0130"  # the Kelvin sign is no k, the dotted I no i


@pytest.mark.parametrize(
    "host",
    ["", "a", "a.b-c_d~e", "a.b:", "a.b:80", "127.0.0.1:80", "[::1]", "[::1]:80", "[fe80::1%25eth0]", "a!$&'()*+;="],
)
def test_an_authority_passes(host: str) -> None:
    refuse_unacceptable(host)


@pytest.mark.parametrize(
    "host",
    [
        "user@shop.example",
        "shop.example,other.example",
        "shop.example\t",
        " shop.example",
        "shop.example\x00",
        "shop.example\n",
        "shop.example/x",
        "shop.example#x",
        "shop.example?x",
        "shop%2eexample",
        "%73hop.example",
        "shop.example%",
        "shop.example\\x",
        "shop.example:80.other",
        "shop.example:80:80",
        "shop.example:\u0668",
        "\u212aey.example",
        "[::1",
        "[::1]x",
        "[g::1]",
        "::1",
        '"shop"',
        "<shop>",
    ],
)
def test_a_host_that_no_client_sends_is_refused(host: str) -> None:
    with pytest.raises(HostError):
        refuse_unacceptable(host)
