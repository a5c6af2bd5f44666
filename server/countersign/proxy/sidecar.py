"""What an Envoy that asks Countersign is to be told, checked once."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from countersign.core.identity import XfccMode
from countersign.core.spiffe import SpiffeId, SpiffeIdError
from countersign.edge.addresses import Address, AddressError, TcpAddress, UnixAddress, of_worker
from countersign.policy.workload import Labels, WorkloadError, refuse_unreadable

DEFAULT_AUTHORIZER: Final = UnixAddress("/run/countersign/authz.sock")


class SidecarError(ValueError):
    """A setting that cannot be used; the message names its flag, and says what is wanted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sidecar:
    """Where Envoy listens, whom it asks, what it protects. Raise `SidecarError` for what cannot work.

    ``authorizer`` is what `serve --listen` is told; beyond this machine it is spoken to over mTLS, as
    ``authorizer_id``. ``extensions`` is the workload as ``context_extensions`` say it, ``labels`` as Envoy's node does.
    ``certificates`` is the directory of tls.crt, tls.key and ca.crt.
    """

    name: str = "workload"
    listener: TcpAddress = TcpAddress("0.0.0.0", 15006)  # noqa: RUF009, S104 (frozen; a sidecar faces the network)
    application: TcpAddress = TcpAddress("127.0.0.1", 8080)  # noqa: RUF009 (frozen)
    authorizer: Address = DEFAULT_AUTHORIZER
    authorizer_id: str = ""
    workers: int = 1
    extensions: Mapping[str, str]
    labels: Labels = ()
    certificates: str = "/etc/envoy/certs"
    trust_domain: str = "cluster.local"
    xfcc_mode: XfccMode = XfccMode.APPEND_FORWARD

    def __post_init__(self) -> None:
        """Hold the settings against each other."""
        try:
            refuse_unreadable(self.extensions)
        except WorkloadError as error:
            raise SidecarError(f"the workload cannot be said so: {error}") from error
        try:
            self.endpoints()
        except AddressError as error:
            raise SidecarError(f"--workers {self.workers} and --authorizer: {error}") from error
        if isinstance(self.authorizer, TcpAddress) and not self.authorizer.is_loopback and not self.authorizer_id:
            raise SidecarError(
                f"--authorizer {self.authorizer}: beyond this machine tokens and answers would cross the network in "
                "plaintext; ask over a unix socket or loopback, or over mTLS with --authorizer-id SPIFFE_ID"
            )
        if self.authorizer_id:
            try:
                SpiffeId.parse(self.authorizer_id)
            except SpiffeIdError as error:
                raise SidecarError(f"--authorizer-id: {error}") from error

    def endpoints(self) -> list[Address]:
        """The address of each worker, as `serve --workers` listens. Raise `AddressError`."""
        if self.workers == 1:
            return [self.authorizer]
        return [of_worker(self.authorizer, number) for number in range(self.workers)]
