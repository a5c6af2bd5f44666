"""SPIFFE IDs, strictly: refuse, never repair.

Source: SPIFFE-ID.md section 2 (syntax, lengths); X509-SVID.md section 5.2 (a leaf names a path).
Upper case in scheme or trust domain is refused, not folded: what is compared is what was written.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

_MAX_LENGTH: Final = 2048  # SPIFFE-ID.md 2.3: implementations must support 2048 bytes, and need no more
_MAX_TRUST_DOMAIN: Final = 255  # SPIFFE-ID.md 2.1

_TRUST_DOMAIN: Final = re.compile(r"[a-z0-9._-]+")
# A segment is one or more of the allowed characters, and neither `.` nor `..` (SPIFFE-ID.md 2.2).
_SPIFFE_ID: Final = re.compile(r"spiffe://([a-z0-9._-]+)((?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._-]+)*)")
_WORKLOAD_SEGMENTS: Final = 5  # "", "ns", namespace, "sa", service account


class SpiffeIdError(ValueError):
    """The text is no SPIFFE ID."""


@dataclass(frozen=True, slots=True)
class SpiffeId:
    """``spiffe://<trust_domain><path>``; the path is empty or starts with a slash."""

    trust_domain: str
    path: str

    @classmethod
    def parse(cls, text: str) -> "SpiffeId":
        """Raise `SpiffeIdError` unless the whole text is a SPIFFE ID."""
        if len(text) > _MAX_LENGTH:
            raise SpiffeIdError(f"longer than {_MAX_LENGTH} characters")
        return _parsed(text)

    @property
    def name(self) -> str:
        """The ID without its scheme, as Istio's ``principals`` are written."""
        return self.trust_domain + self.path

    @property
    def namespace(self) -> str | None:
        """The Kubernetes namespace of ``/ns/<namespace>/sa/<service account>``, of exactly that form."""
        workload = self._workload()
        return workload[0] if workload else None

    @property
    def service_account(self) -> str | None:
        """The service account of ``/ns/<namespace>/sa/<service account>``, of exactly that form."""
        workload = self._workload()
        return workload[1] if workload else None

    def _workload(self) -> tuple[str, str] | None:
        parts = self.path.split("/")
        if len(parts) == _WORKLOAD_SEGMENTS and parts[1] == "ns" and parts[3] == "sa":
            return parts[2], parts[4]
        return None

    def __str__(self) -> str:
        return f"spiffe://{self.trust_domain}{self.path}"


@lru_cache(maxsize=1024)  # there are few workloads and many requests; what is refused is not remembered
def _parsed(text: str) -> SpiffeId:
    match = _SPIFFE_ID.fullmatch(text)
    if match is None:
        raise SpiffeIdError("not of the form spiffe://<trust domain>/<path>, in the characters SPIFFE allows")
    if len(match[1]) > _MAX_TRUST_DOMAIN:
        raise SpiffeIdError(f"trust domain longer than {_MAX_TRUST_DOMAIN} characters")
    return SpiffeId(match[1], match[2])


def is_trust_domain(text: str) -> bool:
    """Whether the text can stand as a trust domain (SPIFFE-ID.md 2.1)."""
    return len(text) <= _MAX_TRUST_DOMAIN and _TRUST_DOMAIN.fullmatch(text) is not None
