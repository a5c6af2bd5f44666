"""Chains: leaf first, each signed by the next, and an authority that may sign at the end."""

from typing import Final

import pytest
from countersign.certificates.chain import links, why_unverified
from countersign.certificates.pem import read_pem
from countersign.certificates.read import CertificateError
from cryptography.hazmat.primitives.asymmetric import ed25519

from tests.support import vectors
from tests.support.certificates import HOUR, NOW, Issued, authority, issue

SHOP: Final = "spiffe://cluster.local/ns/apps/sa/shop"
CA: Final = authority()
MIDDLE: Final = authority("Middle", by=CA, path_length=0)
LEAF: Final = issue(SHOP, by=MIDDLE, ca=False)
AT: Final = NOW.timestamp()


def _why(*chain: Issued, ca: Issued = CA, now: float = AT) -> str:
    return why_unverified([each.der for each in chain], [ca.der], now)


def test_each_certificate_tells_whether_the_next_has_signed_it() -> None:
    found = links([LEAF.der, MIDDLE.der, CA.der])

    assert [link.signed_by_next for link in found] == [True, True, None]
    assert [link.self_signed for link in found] == [False, False, True]
    assert found[0].facts.uris == (SHOP,)
    assert [link.signed_by_next for link in links([LEAF.der, CA.der, MIDDLE.der])] == [False, False, None]


def test_a_namesake_with_another_key_has_signed_nothing() -> None:
    impostor = authority("Middle")

    assert [link.signed_by_next for link in links([LEAF.der, impostor.der])] == [False, None]
    assert _why(LEAF, impostor)


def test_a_path_to_an_authority_verifies() -> None:
    assert _why(LEAF, MIDDLE) == ""
    assert _why(LEAF, MIDDLE, CA) == ""
    assert _why(LEAF, ca=MIDDLE) == ""
    assert _why(issue(SHOP, by=CA, ca=False, usage=None, purposes=())) == ""
    assert _why(issue(SHOP, by=CA, key=ed25519.Ed25519PrivateKey.generate())) == ""


@pytest.mark.parametrize("seconds", [-2 * HOUR.total_seconds(), 2 * HOUR.total_seconds()])
def test_a_path_has_its_time(seconds: float) -> None:
    assert "not valid at" in _why(LEAF, MIDDLE, now=AT + seconds)


def test_a_path_that_does_not_lead_there_says_why() -> None:
    no_authority = issue("spiffe://cluster.local/x", by=CA, subject="No CA", ca=False)
    may_not_sign = authority("No signer", by=CA, usage=("crl_sign",))
    too_deep = authority("Too deep", by=MIDDLE)

    assert "none of them has signed it" in _why(LEAF)
    assert "signature does not match" in _why(LEAF, MIDDLE, ca=authority())
    assert "basicConstraints.cA" in _why(issue(SHOP, by=no_authority), no_authority)
    assert _why(issue(SHOP, by=may_not_sign), may_not_sign) == "an authority whose key may not sign certificates"
    assert "path length" in _why(issue(SHOP, by=too_deep), too_deep, MIDDLE)


def test_octets_that_are_no_certificate_are_refused() -> None:
    for call in (lambda: links([b"x"]), lambda: why_unverified([LEAF.der], [b"x"], AT)):
        with pytest.raises(CertificateError):
            call()


@pytest.mark.parametrize("name", ["wrong-intermediate-no-ca", "wrong-intermediate-no-key-cert-sign"])
def test_the_published_intermediates_verify_nothing_and_the_good_one_does(name: str) -> None:
    good = read_pem(vectors.text("vectors/spiffe/x509svid/good-leaf-and-intermediate.pem"))
    then = links(good)[0].facts.not_before + 60
    assert why_unverified(good[:1], good[1:], then) == ""
    wrong = read_pem(vectors.text(f"vectors/spiffe/x509svid/{name}.pem"))
    then = links(wrong)[0].facts.not_before + 60
    assert why_unverified(wrong[:1], wrong[1:], then)
