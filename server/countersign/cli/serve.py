"""`countersign serve`: the flags, and their way into `Settings`."""

import argparse
import asyncio
import logging
import os
import sys
from pathlib import Path
from typing import Any, Final

from countersign.app import App
from countersign.cli.config.admin_flags import add_admin_flags, admin_of
from countersign.cli.config.file import ConfigError
from countersign.cli.config.flags import make_settings
from countersign.cli.config.key_flags import add_key_flags, keys_of
from countersign.cli.config.layers import DEFAULT, Layered, layered
from countersign.cli.config.printed import printed
from countersign.cli.config.record_flags import add_record_flags, record_of
from countersign.cli.config.tls_flags import ENDPOINT_SOCKET, add_tls_flags, tls_of
from countersign.cli.mesh_flags import DEFAULT_POLICIES, add_mesh_flags, mesh_of
from countersign.edge.addresses import Address, AddressError, TcpAddress, parse_address
from countersign.edge.collector import settle
from countersign.edge.kubernetes.address import Cluster, ClusterError, parse_cluster
from countersign.edge.tls.settings import WorkloadApi
from countersign.edge.tls.source import TlsError
from countersign.edge.transport import Transport, TransportError
from countersign.policy.problems import PolicyError
from countersign.settings import Settings, SettingsError
from countersign.tokens.cache import ENTRIES
from countersign.tracing.traced import is_installed

_LEVELS: Final = ("debug", "info", "warning", "error")
_TRACING: Final = ("none", "otlp")
_MAX_ENTRIES: Final = 1_000_000
_MAX_WORKERS: Final = 64
_LOG_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_DEFAULT_LISTEN: Final = TcpAddress("127.0.0.1", 9191)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `serve`."""
    add = parser.add_argument
    add(
        "--listen",
        metavar="ADDR",
        type=_address,
        action="append",
        default=[],
        help=f"unix:/path or host:port; repeatable (default: {_DEFAULT_LISTEN})",
    )
    add("--insecure-listen", action="store_true", help="allow --listen on other machines' reach, in plaintext")
    add(
        "--policies",
        metavar="PATH",
        type=_policies,
        action="append",
        default=[],
        help="file or directory of Istio YAML, or kubernetes:// for the objects of a cluster; watched; repeatable "
        f"(default: {DEFAULT_POLICIES})",
    )
    add_mesh_flags(parser)
    add(
        "--transport",
        type=Transport,
        choices=list(Transport),
        default=Transport.AUTO,
        help="what carries gRPC; auto: native (pygrpc-native) on a unix socket or loopback, else grpcio",
    )
    add(
        "--workers",
        metavar="N",
        type=_workers,
        default=1,
        help="processes to serve with, each on an address of its own: authz-0.sock, ...; ports count up (default: 1)",
    )
    add(
        "--token-cache",
        metavar="ENTRIES",
        type=_entries,
        default=ENTRIES,
        help="verified tokens to remember, at 2 KB to 8 KB each; 0 verifies every token anew (default: %(default)s)",
    )
    add(
        "--probes",
        metavar="HOST:PORT",
        type=_tcp,
        default=TcpAddress("127.0.0.1", 8282),
        help="health over HTTP (default: %(default)s)",
    )
    add_admin_flags(parser)
    add(
        "--tracing",
        choices=_TRACING,
        default="none",
        help="a span for each sampled check, sent as the OTEL_ variables say; wants the extra `otel` (default: none)",
    )
    add("--log-level", choices=_LEVELS, default="info", help="least important lines on stderr (default: %(default)s)")
    add_key_flags(parser)
    add_tls_flags(parser)
    add_record_flags(parser)
    add("--config", metavar="FILE", help="countersign.yaml: every flag as a field, and `issuers`")
    make_settings(parser)
    add("--print-config", action="store_true", help="print every setting, where it is from, and end")
    parser.epilog = (
        "Each flag is also a field of --config FILE (--trust-domain is trustDomain) and an environment variable "
        "(COUNTERSIGN_TRUST_DOMAIN). The flag wins over the variable, the variable over the file."
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve until told to stop."""
    settle()
    try:
        given = layered(arguments, os.environ)
        settings = _settings(given)
    except ConfigError as error:
        print(f"countersign serve: the configuration cannot be used\n{error}", file=sys.stderr)
        return 2
    except SettingsError as error:
        print(f"countersign serve: {error}", file=sys.stderr)
        return 2
    configuration = printed(given, arguments.settings.values(), _effective(settings))
    if arguments.print_config:
        print(configuration, end="")
        return 0
    logging.basicConfig(
        level=given.arguments.log_level.upper(),
        stream=sys.stderr,
        format=_LOG_FORMAT,
    )
    return _serve(settings, configuration, given.arguments.log_level.upper())


def _serve(settings: Settings, configuration: str, log_level: str) -> int:
    try:
        asyncio.run(_service(settings, configuration, log_level))
    except PolicyError as error:
        print(f"countersign serve: the policies cannot be used\n{error}", file=sys.stderr)
        return 1
    except TlsError as error:
        print(f"countersign serve: the TLS certificate cannot be used\n{error}", file=sys.stderr)
        return 1
    except TransportError as error:
        print(f"countersign serve: {error}", file=sys.stderr)
        return 2
    return 0


async def _service(settings: Settings, configuration: str, log_level: str) -> None:
    if settings.workers == 1:
        await App(settings, configuration).run()
    else:
        # Only where there are some.
        from countersign.workers.messages import Logs  # noqa: PLC0415
        from countersign.workers.supervisor import Supervisor  # noqa: PLC0415

        await Supervisor(settings, Logs(level=log_level, format=_LOG_FORMAT), configuration).run()


def _effective(settings: Settings) -> dict[str, tuple[Any, str]]:
    """What stands for a setting that nobody gave, where its default is not the flag's."""
    found: dict[str, tuple[Any, str]] = {"listen": (settings.listen, DEFAULT), "policies": (settings.policies, DEFAULT)}
    if settings.tls is not None and isinstance(settings.tls.source, WorkloadApi):
        found["tls_spiffe_socket"] = (settings.tls.source.socket, ENDPOINT_SOCKET)
    return found


def _settings(given: Layered) -> Settings:
    arguments = given.arguments
    try:
        return Settings(
            listen=tuple(arguments.listen or [_DEFAULT_LISTEN]),
            insecure_listen=arguments.insecure_listen,
            policies=tuple(arguments.policies or [Path(DEFAULT_POLICIES)]),
            probes=arguments.probes,
            mesh=mesh_of(arguments),
            transport=arguments.transport,
            token_cache=arguments.token_cache,
            workers=arguments.workers,
            keys=keys_of(arguments, given.issuers),
            tls=tls_of(arguments, os.environ),
            record=record_of(arguments),
            admin=admin_of(arguments),
            insecure_admin=arguments.insecure_admin,
            tracing=_tracing(arguments.tracing),
        )
    except SettingsError as error:
        raise SettingsError(given.placed(str(error))) from error


def _tracing(way: str) -> bool:
    if way == "otlp" and not is_installed():
        raise SettingsError("--tracing otlp: OpenTelemetry is not installed; pip install 'countersign[otel]'")
    return way == "otlp"


def _address(text: str) -> Address:
    try:
        return parse_address(text)
    except AddressError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _policies(text: str) -> Path | Cluster:
    if not text.startswith("kubernetes:"):
        return Path(text)
    try:
        return parse_cluster(text)
    except ClusterError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _entries(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > len(str(_MAX_ENTRIES)) or int(text) > _MAX_ENTRIES:
        raise argparse.ArgumentTypeError(f"`{text}` is no number of tokens, 0 to {_MAX_ENTRIES}")
    return int(text)


def _workers(text: str) -> int:
    if text not in map(str, range(1, _MAX_WORKERS + 1)):
        raise argparse.ArgumentTypeError(f"`{text}` is no number of processes, 1 to {_MAX_WORKERS}")
    return int(text)


def _tcp(text: str) -> TcpAddress:
    address = _address(text)
    if not isinstance(address, TcpAddress):
        raise argparse.ArgumentTypeError(f"`{text}` is no host:port, such as 127.0.0.1:8282")
    return address
