"""Which transport serves which address, and why.

pygrpc-native costs a fraction of grpcio's processor time for a call, and has no TLS. It trusts its peers with memory:
a message has no limit until it is whole, and 4 bytes of a prefix reserve up to 4 GiB of address space, which ends the
process where that much cannot be reserved (tried, 0.5.0). So it serves what only this machine can reach.
"""

import importlib
import logging
import mmap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from countersign.edge.addresses import Address, UnixAddress
from countersign.edge.server import Authorizer, Server
from countersign.edge.servers import Servers
from countersign.edge.tls.handshakes import Handshakes

_log: Final = logging.getLogger(__name__)

_MAX_CLAIM: Final = 2**32 + 2**20  # bytes: the length of a gRPC message is four bytes, and then some


class TransportError(ValueError):
    """The transport that was asked for cannot serve here; the message says why, and what can be done."""


class Transport(StrEnum):
    """The choice of ``--transport``."""

    AUTO = "auto"
    NATIVE = "native"
    GRPCIO = "grpcio"


@dataclass(frozen=True, slots=True)
class Choice:
    """What serves an address. ``because`` is said at the start."""

    transport: Transport
    because: str


def choose(wanted: Transport, address: Address, obstacle: Callable[[], str], *, tls: bool = False) -> Choice:
    """Choose for one address; ``obstacle`` says why the native front cannot serve here, if it cannot.

    Raise `TransportError` where ``native`` was asked for and cannot be.
    """
    if wanted is Transport.GRPCIO:
        return Choice(Transport.GRPCIO, "asked for")
    local = isinstance(address, UnixAddress) or address.is_loopback
    if tls:
        against = "pygrpc-native has no TLS"
    else:
        against = obstacle() if local else "pygrpc-native is for a unix socket or loopback"
    if wanted is Transport.NATIVE:
        if against:
            raise TransportError(f"--transport native cannot serve {address}: {against}; say auto or grpcio")
        return Choice(Transport.NATIVE, "asked for")
    if against:
        return Choice(Transport.GRPCIO, against)
    return Choice(Transport.NATIVE, "a unix socket" if isinstance(address, UnixAddress) else "loopback")


def native_obstacle() -> str:
    """Why pygrpc-native cannot serve on this machine; empty if it can."""
    try:
        importlib.import_module("pygrpc_native")
    except ImportError:
        return "pygrpc-native is not installed"
    try:
        mmap.mmap(-1, _MAX_CLAIM, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except (OSError, ValueError, OverflowError):
        return "pygrpc-native wants to reserve 4 GiB of address space for a message, and cannot"
    return ""


def make_server(
    authorizer: Authorizer,
    addresses: Sequence[Address],
    wanted: Transport,
    obstacle: Callable[[], str] = native_obstacle,
    tls: Handshakes | None = None,
    *,
    metadata: bool = False,
) -> Server:
    """The server of these addresses, with TLS on all of them or on none. Log what was chosen. Raise `TransportError`.

    Where there is TLS, certificates must be there before it is started. With ``metadata``, checks come with that of
    their call.
    """
    servers: list[Server] = []
    on_grpcio: list[Address] = []
    for address in addresses:
        choice = choose(wanted, address, obstacle, tls=tls is not None)
        _log.info("%s is served by %s: %s", address, choice.transport, choice.because)
        if choice.transport is Transport.NATIVE:
            servers.append(_native(authorizer, address, metadata=metadata))
        else:
            on_grpcio.append(address)
    if on_grpcio:
        servers.append(_grpcio(authorizer, on_grpcio, tls, metadata=metadata))
    return servers[0] if len(servers) == 1 else Servers(servers)


def _native(authorizer: Authorizer, address: Address, *, metadata: bool) -> Server:
    from countersign.edge.native_server import NativeServer  # noqa: PLC0415 (only where it is installed)

    return NativeServer(authorizer, address, metadata=metadata)


def _grpcio(authorizer: Authorizer, addresses: Sequence[Address], tls: Handshakes | None, *, metadata: bool) -> Server:
    from countersign.edge.grpc_server import GrpcServer  # noqa: PLC0415 (10 MB that only its own addresses pay for)

    return GrpcServer(authorizer, addresses, tls, metadata=metadata)
