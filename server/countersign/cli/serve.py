"""`countersign serve`: the flags, and their way into `Settings`."""

import argparse
import asyncio
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from countersign.app import App
from countersign.authorize import Mesh
from countersign.core.identity import PeerRules, PeerSource, XfccMode
from countersign.core.posture import Posture
from countersign.edge.addresses import Address, AddressError, TcpAddress, parse_address
from countersign.policy.problems import PolicyError
from countersign.settings import Settings, SettingsError

_DEFAULT_LISTEN: Final = "127.0.0.1:9191"
_DEFAULT_POLICIES: Final = "/etc/countersign/policies"

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
        help=f"file or directory of Istio YAML, watched; repeatable (default: {_DEFAULT_POLICIES})",
    )
    add("--trust-domain", metavar="TD", default="cluster.local", help="the mesh's trust domain (default: %(default)s)")
    add("--trust-domain-alias", metavar="TD", action="append", default=[], help="another name of it; repeatable")
    add(
        "--root-namespace",
        metavar="NS",
        default="istio-system",
        help="its policies apply everywhere (default: %(default)s)",
    )
    add("--namespace", metavar="NS", default="", help="the workload's, where the request does not say")
    add("--label", metavar="K=V", action="append", default=[], help="a label of the workload, likewise; repeatable")
    add(
        "--peer",
        choices=list(map(str, PeerSource)),
        default="cross-check",
        help="where the peer's SPIFFE ID is read (default: %(default)s)",
    )
    add(
        "--xfcc-mode",
        choices=list(map(str, XfccMode)),
        default="append_forward",
        help="how Envoy writes XFCC (default: %(default)s)",
    )
    add(
        "--xfcc-trusted-hops",
        metavar="N",
        type=_hops,
        default=0,
        help="XFCC elements to skip from the right (default: 0)",
    )
    add(
        "--posture",
        choices=list(map(str, Posture)),
        default="strict",
        help="how ambiguous requests are read (default: %(default)s)",
    )
    add("--probes", metavar="HOST:PORT", default="127.0.0.1:8282", help="health over HTTP (default: %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Serve until told to stop."""
    try:
        settings = _settings(arguments)
    except (SettingsError, AddressError) as error:
        print(f"countersign serve: {error}", file=sys.stderr)
        return 2
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        asyncio.run(App(settings).run())
    except PolicyError as error:
        print(f"countersign serve: the policies cannot be used\n{error}", file=sys.stderr)
        return 1
    return 0


def _settings(arguments: argparse.Namespace) -> Settings:
    peer = PeerRules(
        source=PeerSource(arguments.peer),
        xfcc_mode=XfccMode(arguments.xfcc_mode),
        trusted_hops=arguments.xfcc_trusted_hops,
    )
    mesh = Mesh(
        trust_domain=arguments.trust_domain,
        trust_domain_aliases=tuple(arguments.trust_domain_alias),
        root_namespace=arguments.root_namespace,
        namespace=arguments.namespace,
        labels=tuple(sorted(map(_label, arguments.label))),
        peer=peer,
        posture=Posture(arguments.posture),
    )
    return Settings(
        listen=tuple(_flag("--listen", parse_address, text) for text in arguments.listen or [_DEFAULT_LISTEN]),
        insecure_listen=arguments.insecure_listen,
        policies=tuple(Path(text) for text in arguments.policies or [_DEFAULT_POLICIES]),
        probes=_flag("--probes", _tcp, arguments.probes),
        mesh=mesh,
    )


def _flag(name: str, read: Callable[[str], _T], text: str) -> _T:
    try:
        return read(text)
    except AddressError as error:
        raise SettingsError(f"{name}: {error}") from error


def _tcp(text: str) -> TcpAddress:
    address: Address = parse_address(text)
    if not isinstance(address, TcpAddress):
        raise AddressError(f"`{text}` is no host:port, such as 127.0.0.1:8282")
    return address


def _label(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise SettingsError(f"--label {text}: wants K=V, such as app=httpbin")
    return name, value


def _hops(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"`{text}` is no number of hops, 0 or more")
    return int(text)
