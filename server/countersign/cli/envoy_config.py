"""`countersign envoy-config`: what Envoy is to be told, or what is dangerous in what it was told."""

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from countersign.cli.mesh_flags import (
    add_peer_flags,
    add_posture_flag,
    add_remote_ip_flags,
    add_workload_flags,
    trust_domain,
)
from countersign.cli.problem_formats import FORMATS, count
from countersign.core.identity import PeerSource, XfccMode
from countersign.core.posture import Posture
from countersign.edge.addresses import Address, AddressError, TcpAddress, parse_address
from countersign.policy.problems import Severity
from countersign.proxy.lint.look import Expected, look
from countersign.proxy.sidecar import Sidecar, SidecarError

_OK, _FINDING, _USAGE, _IO = 0, 1, 2, 3
_MAX_WORKERS: Final = 64
_FORMS: Final = ("yaml", "json")
_EXTRA: Final = "Envoy's API is not installed: pip install 'countersign[mesh]'"
_DEFAULTS: Final = Sidecar(extensions={})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to print, or which file to check; and what is known of both sides."""
    add = parser.add_argument
    add("--part", choices=("full", "filter", "cluster"), default="full", help="default: %(default)s, a whole sidecar")
    add("--check", metavar="FILE", help="an Envoy configuration, or its /config_dump; `-` is standard input")
    add(
        "-o", "--output", choices=sorted({*_FORMS, *FORMATS}), help="default: yaml; with --check text; json is for both"
    )
    add("--fail-on", choices=["error", "warning"], default="error", help="with --check (default: %(default)s)")
    _add_places(parser)
    _add_workload(parser)
    add_peer_flags(parser)
    add_remote_ip_flags(parser)
    add_posture_flag(parser)


def _add_places(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--authorizer",
        metavar="ADDR",
        type=_address,
        default=_DEFAULTS.authorizer,
        help="where Countersign listens: unix:/path or host:port (default: %(default)s)",
    )
    add("--authorizer-id", metavar="SPIFFE_ID", default="", help="whom to take for it; then it is asked over mTLS")
    add("--workers", metavar="N", type=_workers, default=1, help="as `serve` is told (default: 1)")
    add("--listener", metavar="HOST:PORT", type=_tcp, default=_DEFAULTS.listener, help="default: %(default)s")
    add(
        "--application",
        metavar="HOST:PORT",
        type=_tcp,
        default=_DEFAULTS.application,
        help="what is protected (default: %(default)s)",
    )
    add(
        "--certificates",
        metavar="DIR",
        default=_DEFAULTS.certificates,
        help="of tls.crt, tls.key and ca.crt (default: %(default)s)",
    )
    add("--name", default=_DEFAULTS.name, help="of Envoy's node (default: %(default)s)")
    add("--trust-domain", metavar="TD", type=trust_domain, default=_DEFAULTS.trust_domain, help="default: %(default)s")


def _add_workload(parser: argparse.ArgumentParser) -> None:
    add_workload_flags(parser)
    add = parser.add_argument
    add("--service-account", metavar="NAME", default="", help="the workload's")
    add("--gateway", metavar="NAME", default="", help="the Gateway that the workload is, if it is one")
    add("--gateway-class", metavar="NAME", default="", help="that Gateway's class, such as istio-waypoint")


def run(arguments: argparse.Namespace) -> int:
    """Exit code 0: fine; 1: findings; 2: usage; 3: the file or what writes it is not there."""
    return _check(arguments) if arguments.check is not None else _print(arguments)


def _print(arguments: argparse.Namespace) -> int:
    form = arguments.output or "yaml"
    if form not in _FORMS:
        return _usage(f"-o {form} is for the findings of --check; a configuration is {' or '.join(_FORMS)}")
    if find_spec("envoy_data_plane") is None:
        print(f"countersign envoy-config: {_EXTRA}", file=sys.stderr)
        return _IO
    try:
        sidecar = _sidecar(arguments)
    except SidecarError as error:
        return _usage(str(error))
    # Heavy, and an extra: only for who wants it.
    from countersign.proxy.parts import PARTS  # noqa: PLC0415
    from countersign.proxy.text import as_json, as_yaml  # noqa: PLC0415

    document = PARTS[arguments.part](sidecar)
    print((as_json if form == "json" else as_yaml)(document), end="")
    return _OK


def _usage(message: str) -> int:
    print(f"countersign envoy-config: {message}", file=sys.stderr)
    return _USAGE


def _sidecar(arguments: argparse.Namespace) -> Sidecar:
    labels = tuple(sorted(arguments.label))
    extensions = {
        "workload.namespace": arguments.namespace,
        "workload.service_account": arguments.service_account,
        "workload.gateway": arguments.gateway,
        "workload.gateway_class": arguments.gateway_class,
    }
    if arguments.part != "full":  # whose Envoy has labels of its own, or none
        extensions["workload.labels"] = ",".join(f"{name}={value}" for name, value in labels)
    return Sidecar(
        name=arguments.name,
        listener=arguments.listener,
        application=arguments.application,
        authorizer=arguments.authorizer,
        authorizer_id=arguments.authorizer_id,
        workers=arguments.workers,
        extensions={key: value for key, value in extensions.items() if value},
        labels=labels,
        certificates=arguments.certificates.rstrip("/"),
        trust_domain=arguments.trust_domain,
        xfcc_mode=XfccMode(arguments.xfcc_mode),
    )


def _check(arguments: argparse.Namespace) -> int:
    form = arguments.output or "text"
    if form not in FORMATS:
        return _usage(f"-o {form} is for a configuration; findings are {', '.join(sorted(FORMATS))}")
    name = arguments.check
    octets = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    expected = Expected(
        peer=PeerSource(arguments.peer),
        xfcc_mode=XfccMode(arguments.xfcc_mode),
        posture=Posture(arguments.posture),
        remote_ip_hops=arguments.remote_ip_hops,
        remote_ip_header=arguments.remote_ip_header.lower(),
    )
    seen = look(octets, "stdin" if name == "-" else name, expected)
    print(FORMATS[form](seen.problems, 1), end="")
    for note in seen.notes:
        print(f"note: {note}", file=sys.stderr)
    if not seen.problems:
        print(f"no problems in {count(seen.managers, 'connection manager')}", file=sys.stderr)
    failing = arguments.fail_on == "warning" or any(each.severity is Severity.ERROR for each in seen.problems)
    return _FINDING if seen.problems and failing else _OK


def _address(text: str) -> Address:
    try:
        return parse_address(text)
    except AddressError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _tcp(text: str) -> TcpAddress:
    address = _address(text)
    if not isinstance(address, TcpAddress):
        raise argparse.ArgumentTypeError(f"`{text}` is no host:port, such as 127.0.0.1:8080")
    return address


def _workers(text: str) -> int:
    if text not in map(str, range(1, _MAX_WORKERS + 1)):
        raise argparse.ArgumentTypeError(f"`{text}` is no number of processes, 1 to {_MAX_WORKERS}")
    return int(text)
