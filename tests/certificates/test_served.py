"""What a server may show in its handshakes: each broken piece is refused by name, and has a sound twin."""

import datetime as dt
from collections.abc import Mapping
from typing import Any

import pytest
from countersign.certificates.read import CertificateError
from countersign.certificates.served import Served, read_served, served_from_der
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.support.certificates import HOUR, NOW, Issued, authority, issue

ROOT = authority()
MIDDLE = authority("Middle CA", by=ROOT)
LEAF = issue("spiffe://cluster.local/ns/mesh/sa/countersign", by=ROOT, dns=["countersign"])
BELOW = issue("spiffe://cluster.local/ns/mesh/sa/countersign", by=MIDDLE)


def pkcs8(issued: Issued, encoding: Encoding = Encoding.PEM) -> bytes:
    return issued.key.private_bytes(encoding, PrivateFormat.PKCS8, NoEncryption())


def read(leaf: Issued = LEAF, parts: Mapping[str, bytes] | None = None) -> Served:
    given = {"chain": leaf.pem.encode(), "key": pkcs8(leaf), "authorities": ROOT.pem.encode(), **(parts or {})}
    return read_served(given["chain"], given["key"], given["authorities"], NOW.timestamp())


def test_what_is_sound_is_served_as_it_is() -> None:
    served = read()

    assert served.chain == LEAF.pem.encode()
    assert served.key == pkcs8(LEAF)
    assert served.authorities == ROOT.pem.encode()
    assert served.leaf.uris == ("spiffe://cluster.local/ns/mesh/sa/countersign",)
    assert served.not_after == (NOW + HOUR).timestamp()


def test_the_private_key_is_not_in_its_text() -> None:
    assert "PRIVATE" not in repr(read())
    assert "CERTIFICATE" in repr(read())


def test_a_chain_ends_with_the_first_certificate_of_it_that_does() -> None:
    middle = authority("Middle CA", by=ROOT, not_after=NOW + HOUR / 2)
    leaf = issue("spiffe://cluster.local/ns/mesh/sa/countersign", by=middle)

    assert read(leaf, {"chain": (leaf.pem + middle.pem).encode()}).not_after == (NOW + HOUR / 2).timestamp()


@pytest.mark.parametrize(
    "key", [ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(public_exponent=65537, key_size=2048)]
)
def test_keys_of_both_kinds_that_envoy_takes_are_served(key: Any) -> None:
    assert read(issue("spiffe://cluster.local/a", by=ROOT, key=key)).key.startswith(b"-----BEGIN PRIVATE KEY-----")


def test_the_workload_apis_der_says_the_same() -> None:
    chain = BELOW.der + MIDDLE.der
    served = served_from_der(chain, pkcs8(BELOW, Encoding.DER), ROOT.der + MIDDLE.der, NOW.timestamp())

    assert served.chain == (BELOW.pem + MIDDLE.pem).encode()
    assert served.authorities == (ROOT.pem + MIDDLE.pem).encode()
    assert served.key == pkcs8(BELOW)


def _encrypted() -> bytes:
    return LEAF.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"chain": b""}, "the certificate cannot be read: no PEM block"),
        ({"chain": LEAF.pem.encode()[:-30]}, "the certificate cannot be read: a PEM block that does not"),
        ({"chain": pkcs8(LEAF)}, "the certificate cannot be read: a PEM block `PRIVATE KEY`"),
        ({"chain": b"\xff\xfe"}, "the certificate cannot be read: no PEM block"),
        ({"key": b""}, "the key is no unencrypted private key in PEM"),
        ({"key": LEAF.pem.encode()}, "the key is no unencrypted private key in PEM"),
        ({"key": _encrypted()}, "the key is no unencrypted private key in PEM"),
        ({"key": pkcs8(BELOW)}, "the key is not the certificate's"),
        ({"authorities": b"none"}, "the client CA cannot be read: no PEM block"),
        ({"authorities": LEAF.pem.encode()}, "the client CA has a certificate that is no CA's"),
        ({"authorities": (ROOT.pem + LEAF.pem).encode()}, "the client CA has a certificate that is no CA's"),
        ({"chain": (LEAF.pem + MIDDLE.pem).encode()}, "out of order: certificate 2 has not signed"),
    ],
)
def test_a_broken_part_is_refused_by_name(parts: dict[str, bytes], message: str) -> None:
    with pytest.raises(CertificateError, match=message):
        read(parts=parts)


@pytest.mark.parametrize(
    ("leaf", "message"),
    [
        (issue("spiffe://a/b", by=ROOT, not_after=NOW), "the certificate has expired"),
        (issue("spiffe://a/b", by=ROOT, not_before=NOW + dt.timedelta(seconds=1)), "the certificate is not valid yet"),
        (issue("spiffe://a/b", by=ROOT, purposes=[ExtendedKeyUsageOID.CLIENT_AUTH]), "not for servers"),
        (issue("spiffe://a/b", by=ROOT, key=ed25519.Ed25519PrivateKey.generate()), "neither RSA nor EC"),
    ],
)
def test_a_certificate_that_no_client_would_accept_is_refused(leaf: Issued, message: str) -> None:
    with pytest.raises(CertificateError, match=message):
        read(leaf)


def test_a_certificate_counts_from_its_first_second_to_the_last() -> None:
    leaf = issue("spiffe://a/b", by=ROOT, not_before=NOW, not_after=NOW + dt.timedelta(seconds=1))

    assert read(leaf).not_after == NOW.timestamp() + 1


def test_a_certificate_without_purposes_is_for_everything() -> None:
    assert read(issue("spiffe://a/b", by=ROOT, purposes=())).leaf.extended_key_usage is None


def test_an_intermediate_that_has_expired_ends_the_chain() -> None:
    middle = authority("Middle CA", by=ROOT, not_after=NOW)
    leaf = issue("spiffe://a/b", by=middle)

    with pytest.raises(CertificateError, match="certificate 2 of the chain has expired"):
        read(leaf, {"chain": (leaf.pem + middle.pem).encode()})


def test_authorities_may_expire_one_by_one_but_not_all() -> None:
    old = authority("Old CA", not_after=NOW)

    assert read(parts={"authorities": (old.pem + ROOT.pem).encode()}).leaf.uris
    with pytest.raises(CertificateError, match="the client CA has expired"):
        read(parts={"authorities": old.pem.encode()})


@pytest.mark.parametrize(
    "parts",
    [
        {"chain": b""},
        {"chain": LEAF.der[:-1]},
        {"chain": LEAF.der + b"\x30"},
        {"chain": b"\x30\x03abc"},
        {"key": b"key"},
        {"key": pkcs8(LEAF)},
        {"authorities": b""},
        {"authorities": ROOT.der + b"\x00"},
    ],
)
def test_der_that_is_not_whole_is_refused(parts: dict[str, bytes]) -> None:
    sound = {"chain": LEAF.der, "key": pkcs8(LEAF, Encoding.DER), "authorities": ROOT.der}
    assert served_from_der(sound["chain"], sound["key"], sound["authorities"], NOW.timestamp()).chain
    broken = {**sound, **parts}

    with pytest.raises(CertificateError):
        served_from_der(broken["chain"], broken["key"], broken["authorities"], NOW.timestamp())
