"""Certificates for tests, good and bad: made here, and gone with the test."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOW: Final = dt.datetime(2027, 1, 15, 8, 0, tzinfo=dt.UTC)
HOUR: Final = dt.timedelta(hours=1)
_USAGES: Final = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
    "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


@dataclass(frozen=True)
class Issued:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: Key

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(Encoding.PEM).decode()

    @property
    def sha256(self) -> bytes:
        return self.certificate.fingerprint(hashes.SHA256())


def issue(
    *uris: str,
    by: Issued | None = None,
    dns: Sequence[str] = (),
    names: Sequence[x509.GeneralName] = (),
    subject: str = "",
    key: Key | None = None,
    ca: bool | None = None,
    path_length: int | None = None,
    usage: Sequence[str] | None = ("digital_signature",),
    purposes: Sequence[x509.ObjectIdentifier] = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH),
    not_before: dt.datetime = NOW - HOUR,
    not_after: dt.datetime = NOW + HOUR,
    serial: int | None = None,
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
) -> Issued:
    """A certificate with these URI SANs, signed by ``by`` or by itself; ``ca`` None leaves the constraints out."""
    own = key or ec.generate_private_key(ec.SECP256R1())
    signer = by.key if by else own
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(by.certificate.subject if by else _name(subject))
        .public_key(own.public_key())
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(own.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    sans = [*map(x509.UniformResourceIdentifier, uris), *map(x509.DNSName, dns), *names]
    if sans:
        builder = builder.add_extension(x509.SubjectAlternativeName(sans), critical=not subject)
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=path_length), critical=True)
    if usage is not None:
        members: Any = {name: name in usage for name in _USAGES}
        builder = builder.add_extension(x509.KeyUsage(**members), critical=True)
    if purposes:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    algorithm = None if isinstance(signer, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return Issued(builder.sign(signer, algorithm), own)


def authority(subject: str = "Test CA", *, by: Issued | None = None, **more: Any) -> Issued:
    """A certificate authority of the trust domain cluster.local."""
    fields: dict[str, Any] = {"ca": True, "usage": ("key_cert_sign", "crl_sign"), "purposes": (), **more}
    return issue("spiffe://cluster.local", by=by, subject=subject, **fields)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else [])
