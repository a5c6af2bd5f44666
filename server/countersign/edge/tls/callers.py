"""Who may ask for decisions: the listed workloads, known by the certificates of their connections.

Whoever else has a certificate of the client CA gets a denial, not a gRPC error, which Envoy would let through under
``failure_mode_allow``. Nothing of the request is looked at.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Final

from countersign.certificates.pem import read_pem
from countersign.certificates.read import CertificateError, read_der
from countersign.core.certificate import why_no_workload
from countersign.core.decision import Deny, Reason
from countersign.core.spiffe import SpiffeId
from countersign.judgement import deny

REMEMBERED: Final = 1024  # certificates, of 1 to 2 KiB

_CERTIFICATE: Final = "x509_pem_cert"  # grpcio's name of the leaf


class Callers:
    """``report`` is told of each certificate that is refused, once as long as it is remembered."""

    def __init__(self, allowed: frozenset[SpiffeId], report: Callable[[str], None]) -> None:
        self._allowed = allowed
        self._report = report
        # A connection shows the same certificate at each call: it is read once, and then found by its text.
        self._refusal = lru_cache(maxsize=REMEMBERED)(self._judged)

    def refusal(self, proven: Mapping[str, Iterable[bytes]]) -> Deny | None:
        """The denial of a connection's every check, None if it may ask. ``proven`` is grpcio's ``auth_context``."""
        return self._refusal(b"".join(proven.get(_CERTIFICATE, ())))

    def _judged(self, pem: bytes) -> Deny | None:
        why = self._why_not(pem)
        if not why:
            return None
        self._report(why)
        return deny(Reason.CALLER_NOT_ALLOWED, why)

    def _why_not(self, pem: bytes) -> str:
        try:
            (der,) = read_pem(pem.decode("ascii", "replace"))
            certificate = read_der(der)
        except (CertificateError, ValueError):
            return "the certificate of this connection cannot be read"
        why = why_no_workload(certificate)
        if why:
            return f"the certificate of this connection is no workload's: {why}"
        caller = SpiffeId.parse(certificate.uris[0])
        return "" if caller in self._allowed else f"{caller} is none of those whom --tls-allow-client lists"
