"""What `countersign serve` was told, checked once."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from countersign.core.identity import PeerSource
from countersign.core.spiffe import is_trust_domain
from countersign.edge.addresses import Address, AddressError, TcpAddress, of_worker
from countersign.edge.keys.access import KeySettings
from countersign.edge.kubernetes.address import Cluster, why_no_client
from countersign.edge.tls.settings import TlsSettings
from countersign.edge.transport import Transport
from countersign.record.file import stdout_lock
from countersign.record.settings import RecordSettings, Stdout
from countersign.snapshot import Mesh
from countersign.tokens.cache import ENTRIES


class SettingsError(ValueError):
    """A setting that cannot be used; the message names it, what was found and what is wanted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that `serve` needs. Raise `SettingsError` for what cannot work.

    ``token_cache`` is how many verified tokens are remembered, 0 for none; by each of the ``workers``. ``record`` is
    the log of decisions, None for none. ``admin`` is where the admin API listens, None for nowhere.
    """

    listen: tuple[Address, ...]
    insecure_listen: bool
    policies: tuple[Path | Cluster, ...]
    probes: TcpAddress
    mesh: Mesh
    transport: Transport = Transport.AUTO
    keys: KeySettings = KeySettings()  # noqa: RUF009 (frozen)
    token_cache: int = ENTRIES
    workers: int = 1
    tls: TlsSettings | None = None
    record: RecordSettings | None = None
    admin: TcpAddress | None = None
    insecure_admin: bool = False
    tracing: bool = False

    def __post_init__(self) -> None:
        """Hold the settings against each other."""
        for address in self.listen:
            if self.tls is None and is_exposed(address) and not self.insecure_listen:
                raise SettingsError(
                    f"--listen {address}: plaintext beyond this machine shows tokens to the network; listen on a "
                    "unix socket or loopback, set --tls-cert and its companions, or say --insecure-listen"
                )
        if self.tls is not None and self.transport is Transport.NATIVE:
            raise SettingsError("--transport native: pygrpc-native has no TLS; say auto or grpcio")
        if len(set(self.listen)) != len(self.listen):
            raise SettingsError("--listen: the same address twice")
        if self.admin is not None:
            self._refuse_open_admin(self.admin)
        if self.workers > 1:
            self._refuse_clashes()
        _refuse_clusters([root for root in self.policies if isinstance(root, Cluster)])
        refuse_impossible(self.mesh)
        times = self.keys.times
        if 2 * times.refresh > times.max_stale:
            raise SettingsError(
                f"--keys-refresh {times.refresh:g} s: more than half of --keys-max-stale {times.max_stale:g} s; "
                "one failed fetch would end the keys"
            )

    def addresses_of(self, worker: int) -> tuple[Address, ...]:
        """Where a worker listens, counted from 0: its own address for each of ``listen``. Raise `AddressError`."""
        return self.listen if self.workers == 1 else tuple(of_worker(address, worker) for address in self.listen)

    def of_worker(self, worker: int) -> "Settings":
        """Those of one of several workers, counted from 0. Raise `AddressError`."""
        record = None if self.record is None else self.record.of_worker(worker)
        return replace(self, listen=self.addresses_of(worker), workers=1, record=record)

    def sharing_stdout(self) -> "Settings":
        """The same, for workers that write their log of decisions to one standard output."""
        if self.record is None or not isinstance(self.record.to, Stdout):
            return self
        return replace(self, record=replace(self.record, stdout_lock=stdout_lock()))

    def _refuse_open_admin(self, admin: TcpAddress) -> None:
        if not admin.is_loopback and not self.insecure_admin:
            raise SettingsError(
                f"--admin {admin}: whoever reaches it sees policies, and who was denied what; listen on loopback, "
                "or say --insecure-admin"
            )
        if admin.port and admin == self.probes:
            raise SettingsError(f"--admin {admin}: the address of --probes; each wants one of its own")

    def _refuse_clashes(self) -> None:
        flags = f"--workers {self.workers} and --listen"
        taken: dict[Address, str] = {self.probes: "--probes"}
        if self.admin is not None:
            taken[self.admin] = "--admin"
        for worker in range(self.workers):
            try:
                addresses = self.addresses_of(worker)
            except AddressError as error:
                raise SettingsError(f"{flags}: {error}") from error
            for address in addresses:
                if address in taken:
                    raise SettingsError(
                        f"{flags}: worker {worker} would listen on {address}, which is {taken[address]}'s; "
                        "consecutive ports or names must be free"
                    )
                taken[address] = f"worker {worker}"


def is_exposed(address: Address) -> bool:
    """Whether other machines may reach it. A name is taken to be theirs, whatever it resolves to here."""
    return isinstance(address, TcpAddress) and not address.is_loopback


def _refuse_clusters(clusters: Sequence[Cluster]) -> None:
    if len(clusters) > 1:
        raise SettingsError(
            f"--policies {clusters[1]}: one cluster only; its namespaces stand in one URL, joined with `&`"
        )
    for cluster in clusters:
        why = why_no_client()
        if why:
            raise SettingsError(f"--policies {cluster}: {why}")


def refuse_impossible(mesh: Mesh) -> None:
    """Raise `SettingsError` where settings of a mesh cannot work, or not together."""
    for domain in mesh.trust_domains:
        if not is_trust_domain(domain):
            raise SettingsError(f"trust domain `{domain}`: lower-case letters, digits, `.`, `-` and `_` only")
    if mesh.remote_ip_hops and mesh.remote_ip_header:
        raise SettingsError("--remote-ip-hops and --remote-ip-header: only one can say what remote.ip is")
    if mesh.peer.trusted_proxies and not mesh.peer.trusted_hops:
        raise SettingsError("--xfcc-trusted-proxy: only --xfcc-trusted-hops, 1 or more, trusts a proxy")
    if mesh.peer.trusted_hops and mesh.peer.source is not PeerSource.XFCC:
        raise SettingsError(
            f"--xfcc-trusted-hops {mesh.peer.trusted_hops}: only --peer xfcc looks at earlier hops; "
            f"with --peer {mesh.peer.source} the peer is the last one"
        )
