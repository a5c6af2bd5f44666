"""The peer that flags describe: by its SPIFFE ID, or by the certificate that it shows."""

import argparse
import ssl
from dataclasses import dataclass
from typing import Final

from countersign.certificates.presented import present
from countersign.certificates.read import CertificateError, read_der
from countersign.cli.certificate_file import read_certificates
from countersign.core.spiffe import SpiffeId, SpiffeIdError


class DescriptionError(ValueError):
    """The flags describe no request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribedPeer:
    """As Envoy says it: ``principal``, and ``certificate`` (URL-encoded PEM), empty if no flag says which.

    ``element`` is what Envoy writes into XFCC.
    """

    principal: str = ""
    certificate: str = ""
    element: str = ""


NONE: Final = DescribedPeer()


def described_peer(as_: str | None, certificate: str | None) -> DescribedPeer:
    """The peer of ``--as`` or ``--certificate``. Raise `DescriptionError` or OSError."""
    if certificate is not None:
        return _of_certificate(certificate)
    return NONE if as_ is None else _of_id(as_)


def _of_id(text: str) -> DescribedPeer:
    try:
        peer = SpiffeId.parse(text)
    except SpiffeIdError as error:
        raise DescriptionError(f"--as {text}: {error}") from error
    if not peer.path:
        raise DescriptionError(f"--as {text}: a trust domain, not a workload")
    return DescribedPeer(principal=text, element=f"URI={text}")


def _of_certificate(file: str) -> DescribedPeer:
    """The first certificate of a file as Envoy presents it: principal is a URI, else a DNS name, else the subject."""
    try:
        der = read_certificates(file)[0]
        leaf = read_der(der)
    except CertificateError as error:
        raise DescriptionError(f"--certificate: {error}") from error
    return DescribedPeer(
        principal=next(iter((*leaf.uris, *leaf.dns, leaf.subject))),
        certificate=present(ssl.DER_cert_to_PEM_cert(der)),
        element=f"Hash={leaf.sha256.hex()};URI={next(iter(leaf.uris), '')}",
    )


def add_peer_flags(parser: argparse.ArgumentParser) -> None:
    """Who asks: one of three."""
    peer = parser.add_mutually_exclusive_group()
    peer.add_argument("--as", dest="as_", metavar="ID", help="the peer: spiffe://cluster.local/ns/apps/sa/sleep")
    peer.add_argument("--certificate", metavar="FILE", help="the peer by its certificate, PEM or DER")
    peer.add_argument("--plaintext", action="store_true", help="no client certificate (the default)")
