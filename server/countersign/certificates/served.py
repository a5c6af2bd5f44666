"""What a server shows in its handshakes and whom it asks for, checked as a whole before any handshake sees it.

Source: RFC 5280 4.1.2.5 (times), 4.2.1.12 (purposes); RFC 8446 4.4.2 (leaf first, each signs the one before).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_pem_private_key,
)

from countersign.certificates.chain import links
from countersign.certificates.pem import read_pem
from countersign.certificates.read import CertificateError, load
from countersign.core.certificate import Certificate

_SERVER: Final = frozenset({"serverAuth", "anyExtendedKeyUsage"})

_PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """PEM, each whole: the ``chain``, its ``key`` (PKCS #8, unencrypted), the ``authorities`` of clients.

    ``leaf`` are the facts of the first certificate, ``not_after`` (seconds since the epoch) is when the chain ends.
    """

    chain: bytes
    key: bytes = field(repr=False)
    authorities: bytes
    leaf: Certificate
    not_after: float


def read_served(chain: bytes, key: bytes, authorities: bytes, now: float) -> Served:
    """Read three PEM texts. Raise `CertificateError` for what no handshake could succeed with at ``now``."""
    ders = _named("certificate", chain)
    try:
        private = load_pem_private_key(key, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CertificateError("the key is no unencrypted private key in PEM") from error
    return _served(ders, private, _named("client CA", authorities), now)


def served_from_der(chain: bytes, key: bytes, authorities: bytes, now: float) -> Served:
    """The same of DER: certificates one after the other, as the SPIFFE Workload API gives them, and PKCS #8."""
    try:
        private = load_der_private_key(key, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CertificateError("the key is no private key in PKCS #8") from error
    return _served(_apart("certificate", chain), private, _apart("client CA", authorities), now)


def _named(what: str, octets: bytes) -> tuple[bytes, ...]:
    try:
        return read_pem(octets.decode("utf-8", "replace"))  # words between the blocks may be in any language
    except CertificateError as error:
        raise CertificateError(f"the {what} cannot be read: {error}") from error


def _apart(what: str, ders: bytes) -> tuple[bytes, ...]:
    """Certificates that stand one after the other: each is an ASN.1 SEQUENCE that says its length (X.690 8.1.3)."""
    found: list[bytes] = []
    while ders:
        size = ders[1] & 0x7F if len(ders) > 1 and ders[1] & 0x80 else 0
        length = int.from_bytes(ders[2 : 2 + size]) if size else int.from_bytes(ders[1:2])
        end = 2 + size + length
        if end > len(ders):
            raise CertificateError(f"the {what} cannot be read: not DER")
        found.append(ders[:end])
        ders = ders[end:]
    if not found:
        raise CertificateError(f"the {what} cannot be read: there is none")
    return tuple(found)


def _served(chain: Sequence[bytes], key: object, authorities: Sequence[bytes], now: float) -> Served:
    try:
        shown, roots = links(chain), links(authorities)
    except CertificateError as error:
        raise CertificateError(f"a certificate cannot be read: {error}") from error
    leaf = shown[0].facts
    _refuse_key(key, chain[0])
    if leaf.extended_key_usage is not None and not _SERVER & set(leaf.extended_key_usage):
        raise CertificateError("the certificate is not for servers: its extended key usage has no serverAuth")
    for number, link in enumerate(shown, 1):
        if link.signed_by_next is False:
            raise CertificateError(f"the chain is out of order: certificate {number + 1} has not signed the one before")
        _refuse_time("the certificate" if number == 1 else f"certificate {number} of the chain", link.facts, now)
    if not all(root.facts.is_ca for root in roots):
        raise CertificateError("the client CA has a certificate that is no CA's: it can vouch for nobody")
    if all(root.facts.not_after <= now for root in roots):
        raise CertificateError("the client CA has expired")
    return Served(
        chain=_pem(chain),
        key=_exported(key),
        authorities=_pem(authorities),
        leaf=leaf,
        not_after=min(link.facts.not_after for link in shown),
    )


def _refuse_key(key: object, leaf: bytes) -> None:
    if not isinstance(key, _PrivateKey):
        raise CertificateError("the key is neither RSA nor EC, which is what Envoy's handshakes take")
    mine, its = (
        each.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        for each in (key.public_key(), load(leaf).public_key())
    )
    if mine != its:
        raise CertificateError("the key is not the certificate's")


def _refuse_time(what: str, facts: Certificate, now: float) -> None:
    if facts.not_after <= now:
        raise CertificateError(f"{what} has expired")
    if facts.not_before > now:
        raise CertificateError(f"{what} is not valid yet")


def _exported(key: object) -> bytes:
    assert isinstance(key, _PrivateKey)  # noqa: S101 (refused before)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _pem(ders: Sequence[bytes]) -> bytes:
    return b"".join(load(der).public_bytes(Encoding.PEM) for der in ders)
