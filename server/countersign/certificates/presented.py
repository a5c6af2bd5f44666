"""The peer's certificate as Envoy presents it: URL-encoded PEM, of the leaf alone.

Source: ext_authz ``include_peer_certificate``; Envoy's ``urlEncodedPemEncodedPeerCertificate`` (connection_impl_base.cc
of transport_sockets/tls), which escapes five characters and no other.
"""

import re
from functools import lru_cache
from typing import Final

from countersign.certificates.pem import read_pem
from countersign.certificates.read import CertificateError, read_der
from countersign.core.certificate import Certificate

MAX_PRESENTED: Final = 48 * 1024  # characters
REMEMBERED: Final = 1024  # certificates: a text is 1 to 2 KiB, so 2 MiB; the bound of the bound is 48 MiB

_PRESENTED: Final = re.compile(
    r"-----BEGIN%20CERTIFICATE-----%0A(?:(?:[A-Za-z0-9]|%2B|%2F|%3D)+%0A)+-----END%20CERTIFICATE-----%0A"
)
_ESCAPES: Final = (("%0A", "\n"), ("%20", " "), ("%2B", "+"), ("%2F", "/"), ("%3D", "="))


def presented(text: str) -> Certificate:
    """The facts of the certificate in ``attributes.source.certificate``. Raise `CertificateError`.

    Every request of a connection repeats the same text, so that answers are remembered: a pure function's, bounded,
    and the one that was asked for longest ago goes first. Refusals are not remembered, and cost one look at the text.
    """
    if len(text) > MAX_PRESENTED:
        raise CertificateError(f"longer than {MAX_PRESENTED} characters")
    return _read(text)


@lru_cache(maxsize=REMEMBERED)
def _read(text: str) -> Certificate:
    if _PRESENTED.fullmatch(text) is None:
        raise CertificateError("not the URL-encoded PEM of one certificate")
    for escaped, plain in _ESCAPES:
        text = text.replace(escaped, plain)
    (der,) = read_pem(text)
    return read_der(der)


def present(pem: str) -> str:
    """The text that Envoy would send for the PEM of one certificate."""
    for escaped, plain in _ESCAPES:
        pem = pem.replace(plain, escaped)
    return pem
