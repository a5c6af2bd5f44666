"""The peer's certificate as Envoy presents it: exactly Envoy's text, read once for many requests."""

from typing import Final

import pytest
from countersign.certificates import presented as module
from countersign.certificates.presented import MAX_PRESENTED, REMEMBERED, present, presented
from countersign.certificates.read import CertificateError

from tests.support import vectors
from tests.support.certificates import Issued, authority, issue

SHOP: Final = "spiffe://cluster.local/ns/apps/sa/shop"
LEAF: Final = issue(SHOP, by=authority())
TEXT: Final = present(LEAF.pem)


def test_envoys_text_gives_the_facts() -> None:
    facts = presented(TEXT)

    assert facts.uris == (SHOP,)
    assert facts.sha256 == LEAF.sha256


def test_every_recorded_certificate_is_read_and_written_again_alike() -> None:
    peers = (row["attributes"].get("source", {}) for row in vectors.json_lines("checkrequests/envoy-1.40.jsonl"))
    rows = [peer for peer in peers if "certificate" in peer]

    assert len(rows) == 40
    for peer in rows:
        facts = presented(peer["certificate"])
        assert peer["principal"] == (facts.uris + facts.dns + (facts.subject,))[0]
        plain = peer["certificate"].replace("%0A", "\n").replace("%20", " ")
        assert present(plain.replace("%2B", "+").replace("%2F", "/").replace("%3D", "=")) == peer["certificate"]


@pytest.mark.parametrize(
    "text",
    [
        "garbage",
        LEAF.pem,  # not URL-encoded
        TEXT.replace("%0A", "%0a"),
        TEXT.replace("%20", "+"),
        TEXT.replace("M", "%4D", 1),
        TEXT * 2,
        f"{TEXT}{present(authority().pem)}",
        TEXT.removesuffix("%0A"),
        f"%0A{TEXT}",
        f"{TEXT}\n",
        TEXT.replace("CERTIFICATE", "PRIVATE%20KEY"),
        "-----BEGIN%20CERTIFICATE-----%0AQUJD%0A-----END%20CERTIFICATE-----%0A",
        "-----BEGIN%20CERTIFICATE-----%0A%3D%3D%0A-----END%20CERTIFICATE-----%0A",
        "x" * (MAX_PRESENTED + 1),
    ],
)
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(CertificateError):
        presented(text)


def test_a_certificate_is_read_once_and_what_is_remembered_is_bounded() -> None:
    module._read.cache_clear()
    first = presented(TEXT)

    assert presented("".join([TEXT[:50], TEXT[50:]])) is first
    assert module._read.cache_info().misses == 1
    assert module._read.cache_info().maxsize == REMEMBERED


def test_a_refusal_is_not_remembered() -> None:
    module._read.cache_clear()
    for _ in range(3):
        with pytest.raises(CertificateError):
            presented("garbage")

    assert module._read.cache_info().currsize == 0


def test_two_certificates_of_one_workload_are_told_apart() -> None:
    twin: Issued = issue(SHOP)

    assert presented(present(twin.pem)).sha256 == twin.sha256 != presented(TEXT).sha256
