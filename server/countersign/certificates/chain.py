"""Certificates of one text as a chain: which one is the leaf, who signed whom, and whether an authority vouches.

For people who look at files. The handshake that counts is Envoy's.
Source: RFC 5280 6.1 (the path itself is `cryptography`'s to verify), RFC 8446 4.4.2 (leaf first, each signs the one
before); X509-SVID.md 4 (extensions).
"""

import datetime as dt
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.x509.verification import Criticality, ExtensionPolicy, PolicyBuilder, Store, VerificationError

from countersign.certificates.read import facts_of, load
from countersign.core.certificate import Certificate


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One certificate of the text; ``signed_by_next`` is None for the last, ``self_signed`` checked by its key."""

    facts: Certificate
    self_signed: bool
    signed_by_next: bool | None


def links(ders: Sequence[bytes]) -> tuple[Link, ...]:
    """Every certificate, in the order of the text. Raise `CertificateError`."""
    loaded = [load(der) for der in ders]
    signed: list[bool | None] = [_signs(issuer, leaf) for leaf, issuer in pairwise(loaded)]
    return tuple(
        Link(facts=facts_of(each), self_signed=_signs(each, each), signed_by_next=by_next)
        for each, by_next in zip(loaded, [*signed, None], strict=True)
    )


def _signs(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    """Whether name and signature are the issuer's; whether it may sign at all is for `why_unverified`."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _refuse_no_signer(_: object, __: x509.Certificate, usage: x509.KeyUsage | None) -> None:
    if usage is not None and not usage.key_cert_sign:  # RFC 5280 6.1.4 (n)
        raise ValueError("an authority whose key may not sign certificates")


# A workload's certificate has its name in a URI, for which the Web's rules have no place: of a leaf only a name is
# asked (the rest by `core.certificate`), of authorities what RFC 5280 wants.
_LEAF: Final = ExtensionPolicy.permit_all().require_present(x509.SubjectAlternativeName, Criticality.AGNOSTIC, None)
_AUTHORITY: Final = (
    ExtensionPolicy.permit_all()
    .require_present(x509.BasicConstraints, Criticality.AGNOSTIC, None)
    .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _refuse_no_signer)
)
# What the library says beside the reason.
_AROUND: Final = re.compile(
    r"^validation failed: |candidates exhausted: |Python extension validator failed: ValueError: "
    r"|\(encountered processing .*\)"
)
_NOBODY: Final = "all candidates exhausted with no interior errors"


def why_unverified(ders: Sequence[bytes], authorities: Sequence[bytes], now: float) -> str:
    """Why no path leads from the first certificate, over the others, to an authority at ``now``; empty if one does.

    Raise `CertificateError` for octets that are no certificate.
    """
    leaf, *others = (load(der) for der in ders)
    store = Store([load(der) for der in authorities])
    verifier = (
        PolicyBuilder()
        .store(store)
        .time(dt.datetime.fromtimestamp(now, dt.UTC))
        .extension_policies(ca_policy=_AUTHORITY, ee_policy=_LEAF)
        .build_client_verifier()
    )
    try:
        verifier.verify(leaf, others)
    except (VerificationError, ValueError, x509.UnsupportedGeneralNameType) as error:
        why = " ".join(_AROUND.sub("", str(error)).split())
        return "none of them has signed it, or a certificate between is missing" if why == _NOBODY else why
    return ""
