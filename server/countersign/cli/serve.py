"""`countersign serve`: the flags, and their way into `Settings`."""

import argparse
import asyncio
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from countersign.app import App
from countersign.cli.mesh_flags import DEFAULT_POLICIES, add_mesh_flags, mesh_of
from countersign.edge.addresses import Address, AddressError, TcpAddress, parse_address
from countersign.edge.transport import Transport, TransportError
from countersign.policy.problems import PolicyError
from countersign.settings import Settings, SettingsError
from countersign.tokens.cache import ENTRIES

_LEVELS: Final = ("debug", "info", "warning", "error")
_DEFAULT_LISTEN: Final = "127.0.0.1:9191"
_MAX_ENTRIES: Final = 1_000_000

_T = TypeVar("_T")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `serve`."""
    add = parser.add_argument
    add(
        "--listen",
        metavar="ADDR",
        action="append",
        help=f"unix:/path or host:port; repeatable (default: {_DEFAULT_LISTEN})",
    )
    add("--insecure-listen", action="store_true", help="allow --listen on other machines' reach, in plaintext")
    add(
        "--policies",
        metavar="PATH",
        action="append",
        help=f"file or directory of Istio YAML, watched; repeatable (default: {DEFAULT_POLICIES})",
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
        "--token-cache",
        metavar="ENTRIES",
        type=_entries,
        default=ENTRIES,
        help="verified tokens to remember, at 2 KB to 8 KB each; 0 verifies every token anew (default: %(default)s)",
    )
    add("--probes", metavar="HOST:PORT", default="127.0.0.1:8282", help="health over HTTP (default: %(default)s)")
    add("--log-level", choices=_LEVELS, default="info", help="least important lines on stderr (default: %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Serve until told to stop."""
    try:
        settings = _settings(arguments)
    except (SettingsError, AddressError) as error:
        print(f"countersign serve: {error}", file=sys.stderr)
        return 2
    logging.basicConfig(
        level=arguments.log_level.upper(),
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    if arguments.log_level == "info":
        logging.getLogger("httpx").setLevel(logging.WARNING)  # each fetch
    try:
        asyncio.run(App(settings).run())
    except PolicyError as error:
        print(f"countersign serve: the policies cannot be used\n{error}", file=sys.stderr)
        return 1
    except TransportError as error:
        print(f"countersign serve: {error}", file=sys.stderr)
        return 2
    return 0


def _settings(arguments: argparse.Namespace) -> Settings:
    return Settings(
        listen=tuple(_flag("--listen", parse_address, text) for text in arguments.listen or [_DEFAULT_LISTEN]),
        insecure_listen=arguments.insecure_listen,
        policies=tuple(Path(text) for text in arguments.policies or [DEFAULT_POLICIES]),
        probes=_flag("--probes", _tcp, arguments.probes),
        mesh=mesh_of(arguments),
        transport=arguments.transport,
        token_cache=arguments.token_cache,
    )


def _flag(name: str, read: Callable[[str], _T], text: str) -> _T:
    try:
        return read(text)
    except AddressError as error:
        raise SettingsError(f"{name}: {error}") from error


def _entries(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > len(str(_MAX_ENTRIES)) or int(text) > _MAX_ENTRIES:
        raise argparse.ArgumentTypeError(f"`{text}` is no number of tokens, 0 to {_MAX_ENTRIES}")
    return int(text)


def _tcp(text: str) -> TcpAddress:
    address: Address = parse_address(text)
    if not isinstance(address, TcpAddress):
        raise AddressError(f"`{text}` is no host:port, such as 127.0.0.1:8282")
    return address
