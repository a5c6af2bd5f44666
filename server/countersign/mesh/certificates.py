"""The mesh's own CA and its X.509 SVIDs: made at start, short-lived, and never two runs alike.

Source: X509-SVID.md sections 2 to 4 (one URI SAN, key usages). The CA's key never leaves this process.
"""

import base64
import datetime as dt
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

TRUST_DOMAIN: Final = "cluster.local"
LIFETIME: Final = dt.timedelta(hours=24)  # Istio's default for a workload's certificate
_SKEW: Final = dt.timedelta(minutes=1)  # between the clocks of containers


@dataclass(frozen=True, slots=True)
class Workload:
    """Somebody with a certificate: the directory's name, the SPIFFE ID, and a DNS name if it is a server."""

    name: str
    spiffe_id: str
    dns_name: str | None = None


HTTPBIN: Final = Workload("httpbin", f"spiffe://{TRUST_DOMAIN}/ns/apps/sa/httpbin", "httpbin")
SLEEP: Final = Workload("sleep", f"spiffe://{TRUST_DOMAIN}/ns/apps/sa/sleep")
BATCH: Final = Workload("batch", f"spiffe://{TRUST_DOMAIN}/ns/legacy/sa/batch")
EDGE: Final = Workload("edge", f"spiffe://{TRUST_DOMAIN}/ns/edge/sa/gateway")
WORKLOADS: Final = (HTTPBIN, SLEEP, BATCH, EDGE)


class Authority:
    """A certificate authority of one trust domain."""

    def __init__(self, now: dt.datetime) -> None:
        self._not_before = now - _SKEW
        self._not_after = now + LIFETIME
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Countersign demo mesh")])
        builder = self._builder(self._name, self._key.public_key())
        self.certificate = (
            builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"spiffe://{TRUST_DOMAIN}")]),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )

    def issue(self, workload: Workload) -> tuple[bytes, bytes]:
        """The certificate and the private key of a workload, as PEM."""
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(workload.spiffe_id)]
        if workload.dns_name is not None:
            names.append(x509.DNSName(workload.dns_name))
        return self.certify(names)

    def certify(self, names: Sequence[x509.GeneralName]) -> tuple[bytes, bytes]:
        """A certificate for these names, whatever they are, and its private key, as PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            self._builder(x509.Name([]), key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            # Critical because the subject is empty (RFC 5280 4.2.1.6).
            .add_extension(x509.SubjectAlternativeName(names), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return certificate.public_bytes(Encoding.PEM), private

    def _builder(self, subject: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._not_before)
            .not_valid_after(self._not_after)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )


def write_certificates(directory: Path, now: dt.datetime) -> None:
    """Make ``<directory>/<workload>/{tls.crt,tls.key,ca.crt}`` for every workload, readable by the owner only."""
    authority = Authority(now)
    ca = authority.certificate.public_bytes(Encoding.PEM)
    for workload in WORKLOADS:
        certificate, key = authority.issue(workload)
        home = directory / workload.name
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, content in (("tls.crt", certificate), ("tls.key", key), ("ca.crt", ca)):
            _write_private(home / name, content)


def thumbprint(file: Path) -> str:
    """The base64url SHA-256 of a certificate in a file, as ``cnf.x5t#S256`` says it (RFC 8705 3.1)."""
    digest = x509.load_pem_x509_certificate(file.read_bytes()).fingerprint(hashes.SHA256())
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _write_private(file: Path, content: bytes) -> None:
    """Replace the file as a whole. `mkstemp` opens with mode 0600, so that no moment shows the content to others."""
    descriptor, temporary = tempfile.mkstemp(dir=file.parent)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
    Path(temporary).replace(file)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
