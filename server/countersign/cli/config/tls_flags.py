"""The flags about TLS of the gRPC port: where its certificates are from, and who may call."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from countersign.cli.mesh_flags import workload
from countersign.edge.addresses import Address, AddressError, UnixAddress, parse_address
from countersign.edge.tls.settings import TlsFiles, TlsSettings, WorkloadApi
from countersign.settings import SettingsError

ENDPOINT_SOCKET: Final = "SPIFFE_ENDPOINT_SOCKET"  # SPIFFE_Workload_Endpoint.md 4

_FILES: Final = ("tls_cert", "tls_key", "tls_client_ca")


def add_tls_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `TlsSettings`."""
    add = parser.add_argument
    add(
        "--tls-cert",
        metavar="FILE",
        type=Path,
        default=None,
        help="PEM of the server's certificate and chain: mTLS on every --listen, watched (default: none)",
    )
    add("--tls-key", metavar="FILE", type=Path, default=None, help="PEM of its private key, unencrypted")
    add(
        "--tls-client-ca",
        metavar="FILE",
        type=Path,
        default=None,
        help="PEM of the authorities that sign callers' certificates",
    )
    add(
        "--tls-allow-client",
        metavar="SPIFFE_ID",
        type=workload,
        action="append",
        default=[],
        help="who may ask for decisions; repeatable, at least one with TLS",
    )
    add(
        "--tls-spiffe-socket",
        metavar="ADDR",
        type=endpoint,
        default=None,
        help="unix:/path of a SPIFFE Workload API, instead of the files "
        f"(default: {ENDPOINT_SOCKET}, if --tls-allow-client is given without files)",
    )


def tls_of(arguments: argparse.Namespace, environment: Mapping[str, str]) -> TlsSettings | None:
    """What the flags say, None without TLS. Raise `SettingsError` for half of what is needed."""
    given = [name for name in _FILES if getattr(arguments, name) is not None]
    callers = frozenset(arguments.tls_allow_client)
    socket = arguments.tls_spiffe_socket
    if not given and socket is None and not callers:
        return None
    if given and socket is not None:
        raise SettingsError(f"{_flag(given[0])} and --tls-spiffe-socket: certificates come from one of them")
    if not callers:
        raise SettingsError(
            f"{_flag(given[0]) if given else '--tls-spiffe-socket'} without --tls-allow-client: everybody with a "
            "certificate of that authority could ask what the policies allow; list the SPIFFE IDs of your Envoys"
        )
    if given:
        missing = [_flag(name) for name in _FILES if name not in given]
        if missing:
            raise SettingsError(f"{_flag(given[0])} without {' and '.join(missing)}: mTLS wants all three")
        files = TlsFiles(certificate=arguments.tls_cert, key=arguments.tls_key, client_ca=arguments.tls_client_ca)
        return TlsSettings(source=files, callers=callers)
    return TlsSettings(source=WorkloadApi(socket or _endpoint_of(environment)), callers=callers)


def endpoint(text: str) -> UnixAddress:
    """The socket of a Workload API: ``unix:/path`` or ``unix:///path``."""
    try:
        address: Address = parse_address(text.replace("unix:///", "unix:/", 1))
    except AddressError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if not isinstance(address, UnixAddress):
        # The specification has tcp:// too; what is fetched has a private key in it.
        raise argparse.ArgumentTypeError(f"`{text}` is no unix socket, such as unix:/run/spire/agent.sock")
    return address


def _endpoint_of(environment: Mapping[str, str]) -> UnixAddress:
    if ENDPOINT_SOCKET not in environment:
        raise SettingsError(
            "--tls-allow-client without certificates: set --tls-cert, --tls-key and --tls-client-ca, or "
            f"--tls-spiffe-socket (or {ENDPOINT_SOCKET})"
        )
    try:
        return endpoint(environment[ENDPOINT_SOCKET])
    except argparse.ArgumentTypeError as error:
        raise SettingsError(f"{ENDPOINT_SOCKET}: {error}") from error


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
