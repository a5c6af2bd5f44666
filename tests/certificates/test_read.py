"""Certificates to facts: everything that is asked later, and nothing from what cannot be read."""

from ipaddress import ip_address
from typing import Final

import pytest
from countersign.certificates.pem import MAX_CERTIFICATES, MAX_TEXT, read_pem
from countersign.certificates.read import MAX_DER, CertificateError, read_der
from countersign.core.certificate import why_no_workload
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support import vectors
from tests.support.certificates import NOW, authority, issue

SHOP: Final = "spiffe://cluster.local/ns/apps/sa/shop"
CA: Final = authority()
LEAF: Final = issue(SHOP, by=CA, dns=["shop.example"], ca=False)


def test_a_workloads_certificate_says_all_of_it() -> None:
    facts = read_der(LEAF.der)

    assert facts.sha256 == LEAF.sha256
    assert (facts.uris, facts.dns, facts.other_names) == ((SHOP,), ("shop.example",), ())
    assert (facts.subject, facts.issuer) == ("", "CN=Test CA")
    assert facts.serial == LEAF.certificate.serial_number
    assert (facts.not_before, facts.not_after) == (NOW.timestamp() - 3600, NOW.timestamp() + 3600)
    assert facts.key == "EC P-256"
    assert (facts.is_ca, facts.path_length) == (False, None)
    assert (facts.key_usage, facts.key_usage_critical) == (frozenset({"digitalSignature"}), True)
    assert facts.extended_key_usage == ("serverAuth", "clientAuth")


def test_an_authoritys_certificate_says_so() -> None:
    facts = read_der(authority(path_length=2).der)

    assert (facts.is_ca, facts.path_length) == (True, 2)
    assert facts.key_usage == frozenset({"keyCertSign", "cRLSign"})
    assert facts.extended_key_usage is None


def test_a_certificate_without_extensions_says_none() -> None:
    facts = read_der(issue(subject="plain", usage=None, purposes=()).der)

    assert (facts.uris, facts.dns, facts.other_names) == ((), (), ())
    assert (facts.is_ca, facts.path_length, facts.key_usage, facts.key_usage_critical) == (False, None, None, False)


def test_names_of_other_kinds_are_told() -> None:
    names = [
        x509.IPAddress(ip_address("192.0.2.1")),
        x509.RFC822Name("a@example.org"),
        x509.DirectoryName(CA.certificate.subject),
        x509.RegisteredID(x509.ObjectIdentifier("1.2.3")),
    ]
    facts = read_der(issue(SHOP, names=names, purposes=[x509.ObjectIdentifier("1.2.3.4")]).der)

    assert facts.uris == (SHOP,)
    assert facts.other_names == ("IP 192.0.2.1", "email a@example.org", "directory CN=Test CA", "RegisteredID")
    assert facts.extended_key_usage == ("1.2.3.4",)


@pytest.mark.parametrize(
    ("key", "told"),
    [
        (ec.generate_private_key(ec.SECP384R1()), "EC P-384"),
        (ec.generate_private_key(ec.SECP256K1()), "EC secp256k1"),
        (rsa.generate_private_key(public_exponent=65537, key_size=2048), "RSA 2048"),
        (ed25519.Ed25519PrivateKey.generate(), "Ed25519"),
    ],
)
def test_the_kind_of_key_is_told(key: ec.EllipticCurvePrivateKey, told: str) -> None:
    assert read_der(issue(SHOP, key=key).der).key == told


def test_what_is_no_certificate_is_refused_and_not_repeated() -> None:
    for octets in (b"", b"secret words", LEAF.der[:-1], LEAF.der + b"\0", b"\x30" * (MAX_DER + 1)):
        with pytest.raises(CertificateError) as error:
            read_der(octets)
        assert "secret" not in str(error.value)


def test_an_extension_that_cannot_be_read_is_refused() -> None:
    broken = x509.UnrecognizedExtension(_BASIC_CONSTRAINTS, b"\x04\x01")

    with pytest.raises(CertificateError, match="cannot be read"):
        read_der(issue(SHOP, extensions=[(broken, True)]).der)


def test_a_version_that_does_not_exist_is_refused() -> None:
    third = bytes.fromhex("a003020102")  # [0] EXPLICIT INTEGER 2, which says v3
    assert LEAF.der.count(third) == 1

    with pytest.raises(CertificateError):
        read_der(LEAF.der.replace(third, third[:-1] + b"\x01"))
    with pytest.raises(CertificateError):
        read_der(LEAF.der.replace(third, third[:-1] + b"\x09"))
    assert read_der(LEAF.der).sha256 == LEAF.sha256


_BASIC_CONSTRAINTS: Final = x509.ObjectIdentifier("2.5.29.19")


@given(st.integers(0, len(LEAF.der) - 1), st.integers(0, 255))
@example(at=15, octet=128)  # a negative serial number
@example(at=12, octet=1)  # a version that does not exist
def test_a_changed_octet_gives_facts_or_a_refusal_and_another_hash(at: int, octet: int) -> None:
    changed = LEAF.der[:at] + bytes([octet]) + LEAF.der[at + 1 :]
    try:
        facts = read_der(changed)
    except CertificateError:
        return
    assert (facts.sha256 == LEAF.sha256) == (changed == LEAF.der)


# --- PEM --------------------------------------------------------------------------------------------------------------


def test_every_certificate_of_a_text_is_read_in_order_with_words_between() -> None:
    assert read_pem(LEAF.pem) == (LEAF.der,)
    assert read_pem(f"subject=shop\n{LEAF.pem}\nissuer:\n{CA.pem}") == (LEAF.der, CA.der)
    assert read_pem(LEAF.pem.replace("\n", "\r\n")) == (LEAF.der,)


BEGIN, END = "-----BEGIN CERTIFICATE-----\n", "-----END CERTIFICATE-----\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no PEM block"),
        ("words", "no PEM block"),
        (f"{BEGIN}!!!!\n{END}", "does not begin"),
        (f"{BEGIN}QUJ\n{END}", "not base64"),
        (f"{BEGIN}QUJD\n", "does not begin"),
        (f"{LEAF.pem}{BEGIN}", "does not begin"),
        (f"{END}{LEAF.pem}", "does not begin"),
        (f"{BEGIN}QUJD\n-----END PRIVATE KEY-----\n", "a PEM block"),
        ("-----BEGIN PRIVATE KEY-----\nQUJD\n-----END PRIVATE KEY-----\n", "`PRIVATE KEY`"),
        (LEAF.pem * (MAX_CERTIFICATES + 1), "more than"),
        ("x" * (MAX_TEXT + 1), "longer than"),
    ],
)
def test_a_text_that_is_anything_else_is_refused_as_a_whole(text: str, told: str) -> None:
    with pytest.raises(CertificateError, match=told):
        read_pem(text)


# --- published --------------------------------------------------------------------------------------------------------

LEAVES: Final = {
    "good-leaf-only": "",
    "good-leaf-and-intermediate": "",
    "wrong-intermediate-no-ca": "",  # its leaf is one; `chain` is about the others
    "wrong-intermediate-no-key-cert-sign": "",
    "wrong-leaf-ca-true": "it is a CA's",
    "wrong-leaf-cert-sign": "keyCertSign",
    "wrong-leaf-crl-sign": "cRLSign",
    "wrong-leaf-empty-id": "0 URI SANs",
    "wrong-leaf-no-digital-signature": "its key may",
}


@pytest.mark.parametrize(("name", "told"), LEAVES.items())
def test_the_published_leaves(name: str, told: str) -> None:
    why = why_no_workload(read_der(read_pem(vectors.text(f"vectors/spiffe/x509svid/{name}.pem"))[0]))

    assert told in why
    assert bool(why) == bool(told)


def test_the_published_corrupt_certificate_is_refused() -> None:
    (der,) = read_pem(vectors.text("vectors/spiffe/x509svid/corrupt-cert.pem"))
    with pytest.raises(CertificateError):
        read_der(der)
