"""One certificate's DER to its facts; what cannot be read as a whole is refused.

Source: RFC 5280; RFC 4514 (names).
"""

from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from countersign.core.certificate import Certificate

MAX_DER: Final = 16 * 1024  # octets; Envoy refuses handshake messages far above this, real leaves have 1 to 2 KiB

_CURVES: Final = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}
_PURPOSES: Final = {
    ExtendedKeyUsageOID.CLIENT_AUTH: "clientAuth",
    ExtendedKeyUsageOID.SERVER_AUTH: "serverAuth",
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE: "anyExtendedKeyUsage",
}
_USAGES: Final = {
    "digital_signature": "digitalSignature",
    "content_commitment": "contentCommitment",
    "key_encipherment": "keyEncipherment",
    "data_encipherment": "dataEncipherment",
    "key_agreement": "keyAgreement",
    "key_cert_sign": "keyCertSign",
    "crl_sign": "cRLSign",
}
# What `cryptography` raises for a certificate that it cannot make sense of.
_REFUSALS: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


class CertificateError(ValueError):
    """The text or the octets are no certificate."""


def read_der(der: bytes) -> Certificate:
    """The facts of a certificate. Raise `CertificateError`, whose text repeats nothing of the certificate."""
    return facts_of(load(der))


def load(der: bytes) -> x509.Certificate:
    """The library's own object. Raise `CertificateError`."""
    if len(der) > MAX_DER:
        raise CertificateError(f"larger than {MAX_DER} octets")
    try:
        return x509.load_der_x509_certificate(der)
    except _REFUSALS as error:
        raise CertificateError("not an X.509 certificate") from error


def facts_of(certificate: x509.Certificate) -> Certificate:
    """The facts of a loaded certificate. Raise `CertificateError` if an extension cannot be read."""
    try:
        return _facts(certificate)
    except _REFUSALS as error:
        raise CertificateError("an X.509 certificate with a part that cannot be read") from error


def _facts(certificate: x509.Certificate) -> Certificate:
    uris, dns, others = _names(certificate)
    is_ca, path_length = _constraints(certificate)
    usage, critical = _usage(certificate)
    return Certificate(
        sha256=certificate.fingerprint(hashes.SHA256()),
        subject=certificate.subject.rfc4514_string(),
        issuer=certificate.issuer.rfc4514_string(),
        serial=certificate.serial_number,
        not_before=certificate.not_valid_before_utc.timestamp(),
        not_after=certificate.not_valid_after_utc.timestamp(),
        uris=uris,
        dns=dns,
        other_names=others,
        key=_key(certificate),
        is_ca=is_ca,
        path_length=path_length,
        key_usage=usage,
        key_usage_critical=critical,
        extended_key_usage=_extended_usage(certificate),
    )


def _names(certificate: x509.Certificate) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """The SANs: URIs, DNS names, and the others as text."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return (), (), ()
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    dns = names.get_values_for_type(x509.DNSName)
    known = (x509.UniformResourceIdentifier, x509.DNSName)
    return tuple(uris), tuple(dns), tuple(_other_name(name) for name in names if not isinstance(name, known))


def _other_name(name: x509.GeneralName) -> str:
    match name:
        case x509.IPAddress():
            return f"IP {name.value}"
        case x509.RFC822Name():
            return f"email {name.value}"
        case x509.DirectoryName():
            return f"directory {name.value.rfc4514_string()}"
        case _:
            return type(name).__name__


def _constraints(certificate: x509.Certificate) -> tuple[bool, int | None]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        return False, None
    return found.ca, found.path_length


def _usage(certificate: x509.Certificate) -> tuple[frozenset[str] | None, bool]:
    """The key usages and whether the extension is critical."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    except x509.ExtensionNotFound:
        return None, False
    return frozenset(name for member, name in _USAGES.items() if getattr(found.value, member)), found.critical


def _extended_usage(certificate: x509.Certificate) -> tuple[str, ...] | None:
    try:
        found = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return None
    return tuple(_PURPOSES.get(oid, oid.dotted_string) for oid in found)


def _key(certificate: x509.Certificate) -> str:
    key = certificate.public_key()
    match key:
        case rsa.RSAPublicKey():
            return f"RSA {key.key_size}"
        case ec.EllipticCurvePublicKey():
            return f"EC {_CURVES.get(key.curve.name, key.curve.name)}"
        case ed25519.Ed25519PublicKey():
            return "Ed25519"
        case ed448.Ed448PublicKey():
            return "Ed448"
        case dsa.DSAPublicKey():
            return f"DSA {key.key_size}"
        case _:
            return type(key).__name__.removesuffix("PublicKey")
