"""What is configured about TLS, as immutable values."""

from dataclasses import dataclass
from pathlib import Path

from countersign.core.spiffe import SpiffeId
from countersign.edge.addresses import UnixAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files: the server's chain, its private key, and the authorities of those who may connect."""

    certificate: Path
    key: Path
    client_ca: Path


@dataclass(frozen=True, slots=True)
class WorkloadApi:
    """The socket of a SPIFFE Workload API, which gives all three."""

    socket: UnixAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """Where certificates are from, and whose checks are answered: at least one."""

    source: TlsFiles | WorkloadApi
    callers: frozenset[SpiffeId]
