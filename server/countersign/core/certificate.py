"""What an X.509 certificate says, as values, and whether it is the certificate of one workload.

`certificates` reads them; nothing here trusts them. Chain, time and possession of the key are Envoy's handshake.
Source: X509-SVID.md sections 2, 4 and 5.2; RFC 5280 4.2.
"""

from dataclasses import dataclass
from typing import Final

from countersign.core.spiffe import SpiffeId, SpiffeIdError

SCHEME: Final = "spiffe:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """One certificate. ``sha256`` is of its DER; names are RFC 4514 text; times are seconds since the epoch.

    ``key_usage`` has RFC 5280's names (``digitalSignature`` ...) and is None without the extension; so are
    ``extended_key_usage`` (names, or dotted numbers) and ``path_length``. ``other_names`` are SANs of other kinds.
    """

    sha256: bytes
    subject: str
    issuer: str
    serial: int
    not_before: float
    not_after: float
    uris: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    other_names: tuple[str, ...] = ()
    key: str
    is_ca: bool = False
    path_length: int | None = None
    key_usage: frozenset[str] | None = None
    key_usage_critical: bool = False
    extended_key_usage: tuple[str, ...] | None = None

    @property
    def names_workload(self) -> bool:
        """Whether it claims to be an SVID at all: any URI SAN of the scheme, in any case."""
        return any(uri[: len(SCHEME)].lower() == SCHEME for uri in self.uris)


def why_no_workload(certificate: Certificate) -> str:
    """What keeps the certificate from being a workload's X.509 SVID; empty if nothing does."""
    if len(certificate.uris) != 1:  # X509-SVID.md 2: exactly one URI SAN; 5.2: validators refuse more
        return f"{len(certificate.uris)} URI SANs, where a workload has exactly one"
    try:
        spiffe_id = SpiffeId.parse(certificate.uris[0])
    except SpiffeIdError as error:
        return f"the URI SAN is no SPIFFE ID: {error}"
    return _why_no_leaf(certificate) if spiffe_id.path else "the SPIFFE ID is a trust domain's, not a workload's"


def _why_no_leaf(certificate: Certificate) -> str:
    """What a validator must look at (X509-SVID.md 5.2), and that a key that is told its uses may sign a handshake."""
    if certificate.is_ca:
        return "it is a CA's"
    usage = certificate.key_usage
    if usage is None:  # 4.3 wants it of those who issue, 5.2 does not ask validators to look for it
        return ""
    if usage & {"keyCertSign", "cRLSign"}:
        return "its key may sign certificates or revocations (keyCertSign, cRLSign)"
    return "" if "digitalSignature" in usage else "its key may not sign (key usage without digitalSignature)"
