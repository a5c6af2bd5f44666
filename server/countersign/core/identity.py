"""Proven facts: who the peer is, and whose token was verified.

The peer comes from Envoy's own TLS handshake (``attributes.source.principal``) and from the header in which Envoy
writes the same handshake down (x-forwarded-client-cert), and is held against the certificate itself where Envoy
presents it (``include_peer_certificate``). Malformed identity input refuses the request: were it "no principal",
a DENY rule on principals would go silent and ``notPrincipals`` would hold.
"""

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, assert_never

from countersign.core.certificate import Certificate, why_no_workload
from countersign.core.decision import Reason
from countersign.core.facts import RequestFacts
from countersign.core.per_check import per_check
from countersign.core.spiffe import SpiffeId, SpiffeIdError
from countersign.core.xfcc import ClientCert, XfccError, parse

XFCC_HEADER: Final = "x-forwarded-client-cert"

_SHA256: Final = re.compile(r"[0-9a-f]{64}")  # as Envoy writes ``Hash``


class PeerSource(StrEnum):
    """``--peer``: where the peer's SPIFFE ID is read."""

    CROSS_CHECK = "cross-check"  # Envoy's principal decides, XFCC may not contradict it
    PRINCIPAL = "principal"
    XFCC = "xfcc"  # for a listener behind the hop that ends TLS


class XfccMode(StrEnum):
    """``--xfcc-mode``: how Envoy's ``forward_client_cert_details`` is set on this listener."""

    SANITIZE_SET = "sanitize_set"  # exactly one element, this hop's
    APPEND_FORWARD = "append_forward"  # the last element is this hop's, the ones before it are hearsay


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerRules:
    """How the peer is established. ``trusted_hops``: how many elements from the right to skip (0: none).

    ``trusted_proxies``: who alone may be at the other end of this listener's connections then; empty: whoever is.
    """

    source: PeerSource = PeerSource.CROSS_CHECK
    xfcc_mode: XfccMode = XfccMode.APPEND_FORWARD
    trusted_hops: int = 0
    trusted_proxies: tuple[SpiffeId, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedToken:
    """A token whose signature, times, issuer and audience were checked. Only `tokens.verify` makes one.

    (`tokens.assume` makes them up for `countersign explain`, which says so; nothing that serves can import it.)
    ``claims`` is what policies see: the payload, its space-delimited claims split into lists. ``key`` is the RFC 7638
    thumbprint (SHA-256, base16) of the key that verified, empty if none did. One object serves many requests, so
    nothing of a request may be in it.
    """

    claims: Mapping[str, Any]
    issuer: str
    subject: str | None
    expires_at: float | None  # seconds since the epoch; None if the token never expires
    key: str = ""


@per_check
class Peer:
    """Who is at the other end. ``certificate`` is the SHA-256 of the DER of the certificate that ``id`` was read from.

    Both are None where nothing proves them: ``certificate`` also where only an unproven header speaks of it.
    """

    id: SpiffeId | None = None
    certificate: bytes | None = None


NOBODY: Final = Peer()


@per_check
class Identity:
    """Both proofs. None means that the proof was not presented, never that it failed."""

    peer: SpiffeId | None
    token: VerifiedToken | None


class PeerError(ValueError):
    """The peer cannot be established, and the request must not pass. ``reason`` says which rule it broke."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def authenticate_peer(facts: RequestFacts, rules: PeerRules, certificate: Certificate | None = None) -> Peer:
    """The peer, as far as it is proven. Raise `PeerError` where the input contradicts itself.

    ``certificate`` is what Envoy presents of this connection's peer, None if it presents nothing.

    The hash of a certificate counts beside the ID only where both are of one handshake: from the certificate itself,
    or from the element of XFCC that names the peer. Behind trusted hops that is the hash in the element of the hop
    that met the peer, and not the one of the last proxy, whose certificate ``certificate`` then is.
    """
    if rules.trusted_proxies and _from_principal(facts) not in rules.trusted_proxies:
        raise PeerError(Reason.PEER_UNTRUSTED_PROXY, "source.principal is none of the trusted proxies")
    elements = () if rules.source is PeerSource.PRINCIPAL else _elements(facts, rules)
    if certificate is not None:
        _refuse_another_certificate(certificate, facts.source.principal, elements)
    match rules.source:
        case PeerSource.PRINCIPAL:
            return Peer(id=_from_principal(facts), certificate=certificate.sha256 if certificate else None)
        case PeerSource.XFCC:
            if not elements:
                return NOBODY
            element = elements[-1 - rules.trusted_hops]
            peer = _from_element(element)
            return Peer(id=peer, certificate=_hash_of(peer, element))
        case PeerSource.CROSS_CHECK:
            peer = _from_principal(facts)
            if peer is not None and elements:
                _refuse_contradiction(peer, elements[-1])
            if certificate is not None:
                return Peer(id=peer, certificate=certificate.sha256)
            return Peer(id=peer, certificate=_hash_of(peer, elements[-1]) if elements else None)
        case _:
            assert_never(rules.source)


def _hash_of(peer: SpiffeId | None, element: ClientCert) -> bytes | None:
    """The hash in an element, if the element is about this peer and by an Envoy that writes both."""
    if peer is None or element.uris != (str(peer),) or _SHA256.fullmatch(element.hash) is None:
        return None
    return bytes.fromhex(element.hash)


def _refuse_another_certificate(certificate: Certificate, principal: str, elements: tuple[ClientCert, ...]) -> None:
    """The certificate is this connection's: principal and last element are about it, whatever hops come before."""
    if (certificate.uris and certificate.uris[0] != principal) or (not certificate.uris and "://" in principal):
        raise PeerError(Reason.PEER_CERTIFICATE_MISMATCH, "source.certificate names another peer than source.principal")
    if elements and not hmac.compare_digest(elements[-1].hash, certificate.sha256.hex()):  # Envoy always writes one
        raise PeerError(Reason.PEER_CERTIFICATE_MISMATCH, f"{XFCC_HEADER} has another hash than source.certificate")
    if certificate.names_workload and (wrong := why_no_workload(certificate)):
        raise PeerError(Reason.PEER_CERTIFICATE_MALFORMED, f"source.certificate is no workload's: {wrong}")


def _from_principal(facts: RequestFacts) -> SpiffeId | None:
    """Envoy gives the first URI SAN, else a DNS SAN, else the subject: only a SPIFFE ID is an identity here."""
    principal = facts.source.principal
    if "://" not in principal and not principal[:7].lower().startswith("spiffe:"):
        return None
    return _workload_id(principal, "source.principal")


def _workload_id(text: str, where: str) -> SpiffeId:
    try:
        peer = SpiffeId.parse(text)
    except SpiffeIdError as error:
        raise PeerError(Reason.PEER_MALFORMED, f"{where}: {error}") from error
    if not peer.path:  # X509-SVID.md 5.2: a workload's ID has a path
        raise PeerError(Reason.PEER_MALFORMED, f"{where}: a trust domain, not a workload")
    return peer


def _elements(facts: RequestFacts, rules: PeerRules) -> tuple[ClientCert, ...]:
    lines = facts.http.headers.values(XFCC_HEADER) if facts.http else ()
    try:
        elements = parse(",".join(lines))
    except XfccError as error:
        raise PeerError(Reason.PEER_MALFORMED, f"{XFCC_HEADER}: {error}") from error
    if not elements:
        return ()
    if rules.xfcc_mode is XfccMode.SANITIZE_SET and len(elements) != 1:
        raise PeerError(Reason.PEER_MALFORMED, f"{XFCC_HEADER}: {len(elements)} elements where SANITIZE_SET writes one")
    if len(elements) <= rules.trusted_hops:
        raise PeerError(
            Reason.PEER_MALFORMED,
            f"{XFCC_HEADER}: {len(elements)} elements, too few for {rules.trusted_hops} trusted hops",
        )
    return elements


def _from_element(element: ClientCert) -> SpiffeId | None:
    uris = element.uris or ()
    if len(uris) > 1:  # X509-SVID.md 5.2: validators must refuse more than one URI SAN
        raise PeerError(Reason.PEER_MALFORMED, f"{XFCC_HEADER}: {len(uris)} URIs in one element")
    if not uris or not uris[0]:
        return None
    return _workload_id(uris[0], XFCC_HEADER)


def _refuse_contradiction(peer: SpiffeId, element: ClientCert) -> None:
    if element.uris is None:  # this Envoy is not set to write URIs: nothing is said, nothing contradicted
        return
    claimed = _from_element(element)
    if claimed != peer:
        raise PeerError(Reason.PEER_MISMATCH, f"{XFCC_HEADER} names another peer than source.principal")
