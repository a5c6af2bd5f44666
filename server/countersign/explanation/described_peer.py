"""The peer that somebody describes: by its SPIFFE ID, or by the certificate that it shows."""

import ssl
from dataclasses import dataclass
from typing import Final

from countersign.certificates.presented import present
from countersign.certificates.read import CertificateError, read_der
from countersign.core.spiffe import SpiffeId, SpiffeIdError


class DescriptionError(ValueError):
    """The words describe no request.

    ``part`` is the wrong one, by the name of its flag; empty where that is the method or the path. ``said`` is what it
    says, empty where that may be a secret. As text it is said of the flag.
    """

    def __init__(self, why: str, part: str = "", said: str = "") -> None:
        self.why = why
        self.part = part
        self.said = said
        super().__init__(f"--{part}{said and ' '}{said}: {why}" if part else why)


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribedPeer:
    """As Envoy says it: ``principal``, and ``certificate`` (URL-encoded PEM), empty if nothing says which.

    ``element`` is what Envoy writes into XFCC.
    """

    principal: str = ""
    certificate: str = ""
    element: str = ""


NONE: Final = DescribedPeer()


def described_peer(as_: str | None, certificate: bytes | None) -> DescribedPeer:
    """The peer of a SPIFFE ID or of a certificate (DER). Raise `DescriptionError`."""
    if certificate is not None:
        return _of_certificate(certificate)
    return NONE if as_ is None else _of_id(as_)


def _of_id(text: str) -> DescribedPeer:
    try:
        peer = SpiffeId.parse(text)
    except SpiffeIdError as error:
        raise DescriptionError(str(error), "as", text) from error
    if not peer.path:
        raise DescriptionError("a trust domain, not a workload", "as", text)
    return DescribedPeer(principal=text, element=f"URI={text}")


def _of_certificate(der: bytes) -> DescribedPeer:
    """As Envoy presents it: principal is a URI, else a DNS name, else the subject."""
    try:
        leaf = read_der(der)
    except CertificateError as error:
        raise DescriptionError(str(error), "certificate") from error
    return DescribedPeer(
        principal=next(iter((*leaf.uris, *leaf.dns, leaf.subject))),
        certificate=present(ssl.DER_cert_to_PEM_cert(der)),
        element=f"Hash={leaf.sha256.hex()};URI={next(iter(leaf.uris), '')}",
    )
