"""Which addresses an issuer may have."""

from ipaddress import ip_address, ip_network

import pytest
from countersign.edge.keys.access import Access, IssuerKeys, KeySettings

NEVER = [
    "169.254.169.254", "169.254.170.2", "fe80::1", "fd00:ec2::254", "fd20:ce::254", "168.63.129.16", "100.100.100.200",
    "192.0.0.192", "0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255", "240.0.0.1", "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", "::ffff:0.0.0.0",
]  # fmt: skip
USUALLY = ["127.0.0.1", "::1", "10.0.0.1", "192.168.0.1", "203.0.114.1", "2001:db9::1", "fd00::1", "100.64.0.1"]


@pytest.mark.parametrize("text", NEVER)
def test_some_addresses_are_no_issuers_whatever_is_configured(text: str) -> None:
    everything = Access(addresses=(ip_network("0.0.0.0/0"), ip_network("::/0")), insecure_http=True)
    for access in (Access(), everything):
        assert "link-local" in access.wrong_with(ip_address(text), plaintext=False)


@pytest.mark.parametrize("text", USUALLY)
def test_private_addresses_and_this_machine_are_issuers_unless_blocked(text: str) -> None:
    address = ip_address(text)

    assert Access().wrong_with(address, plaintext=False) == ""
    blocked = Access(blocked=(ip_network(text),), addresses=(ip_network(text),))
    assert blocked.wrong_with(address, plaintext=False) == "the address is blocked by configuration"


def test_an_address_in_other_clothes_is_blocked_with_it() -> None:
    access = Access(blocked=(ip_network("10.0.0.0/8"),))

    for text in ("10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::10.1.2.3", "2002:0a01:0203::"):
        assert access.wrong_with(ip_address(text), plaintext=False) == "the address is blocked by configuration"
    assert access.wrong_with(ip_address("::ffff:11.1.2.3"), plaintext=False) == ""


def test_where_addresses_are_configured_there_are_no_others() -> None:
    access = Access(addresses=(ip_network("10.0.0.0/8"), ip_network("fd00::/8")))

    assert access.wrong_with(ip_address("10.9.9.9"), plaintext=False) == ""
    assert access.wrong_with(ip_address("fd00::1"), plaintext=False) == ""
    only = "the address is none of the configured ones"
    assert access.wrong_with(ip_address("11.0.0.1"), plaintext=False) == only
    assert access.wrong_with(ip_address("127.0.0.1"), plaintext=False) == only


def test_http_without_tls_goes_to_this_machine_only_unless_allowed() -> None:
    for text in ("127.0.0.1", "127.9.9.9", "::1"):
        assert Access().wrong_with(ip_address(text), plaintext=True) == ""
    for text in ("10.0.0.1", "203.0.114.1", "fd00::1"):
        assert "insecureHttp" in Access().wrong_with(ip_address(text), plaintext=True)
        assert Access(insecure_http=True).wrong_with(ip_address(text), plaintext=True) == ""


def test_a_way_is_found_by_its_name_and_the_usual_one_blocks_what_is_blocked() -> None:
    way = Access(insecure_http=True)
    settings = KeySettings(blocked=(ip_network("10.0.0.0/8"),), issuers=(IssuerKeys(name="a", access=way),))

    assert settings.access("a") is way
    assert settings.access("") == Access(blocked=settings.blocked)
