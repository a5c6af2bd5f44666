"""The flags that say how a mesh is read: the same for every verb that judges requests."""

import argparse
from typing import Final

from countersign.core.identity import PeerRules, PeerSource, XfccMode
from countersign.core.posture import Posture
from countersign.core.spiffe import SpiffeId, SpiffeIdError, is_trust_domain
from countersign.snapshot import Mesh

DEFAULT_POLICIES: Final = "/etc/countersign/policies"


def add_name_flags(parser: argparse.ArgumentParser) -> None:
    """The names of a mesh, and how its requests are read."""
    add = parser.add_argument
    add(
        "--trust-domain",
        metavar="TD",
        type=trust_domain,
        default="cluster.local",
        help="the mesh's trust domain (default: %(default)s)",
    )
    add(
        "--trust-domain-alias",
        metavar="TD",
        type=trust_domain,
        action="append",
        default=[],
        help="another name of it; repeatable",
    )
    add(
        "--root-namespace",
        metavar="NS",
        default="istio-system",
        help="its policies apply everywhere (default: %(default)s)",
    )
    add_posture_flag(parser)


def add_mesh_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of a `Mesh`."""
    add_name_flags(parser)
    add_workload_flags(parser)
    add_peer_flags(parser)
    add = parser.add_argument
    add(
        "--xfcc-trusted-hops",
        metavar="N",
        type=_hops,
        default=0,
        help="XFCC elements to skip from the right (default: 0)",
    )
    add(
        "--xfcc-trusted-proxy",
        metavar="SPIFFE_ID",
        type=workload,
        action="append",
        default=[],
        help="with --xfcc-trusted-hops: who alone may connect; repeatable (default: whom Envoy lets)",
    )
    add_remote_ip_flags(parser)


def add_remote_ip_flags(parser: argparse.ArgumentParser) -> None:
    """Where the client's address is read."""
    add = parser.add_argument
    add(
        "--remote-ip-hops",
        metavar="N",
        type=_hops,
        default=0,
        help="proxies before Envoy that x-forwarded-for is trusted for (default: 0)",
    )
    add(
        "--remote-ip-header",
        metavar="NAME",
        default="",
        help="the header in which Envoy writes the client's address (default: none)",
    )


def add_posture_flag(parser: argparse.ArgumentParser) -> None:
    """How ambiguous requests are read."""
    parser.add_argument(
        "--posture",
        choices=list(map(str, Posture)),
        default="strict",
        help="how ambiguous requests are read (default: %(default)s)",
    )


def add_workload_flags(parser: argparse.ArgumentParser) -> None:
    """Whose policies apply."""
    add = parser.add_argument
    add("--namespace", metavar="NS", default="", help="the workload's, where the request does not say")
    add(
        "--label",
        metavar="K=V",
        type=label,
        action="append",
        default=[],
        help="a label of the workload, likewise; repeatable",
    )


def add_peer_flags(parser: argparse.ArgumentParser) -> None:
    """Where Envoy says who the peer is."""
    add = parser.add_argument
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


def mesh_of(arguments: argparse.Namespace) -> Mesh:
    """The mesh that the flags describe."""
    peer = PeerRules(
        source=PeerSource(arguments.peer),
        xfcc_mode=XfccMode(arguments.xfcc_mode),
        trusted_hops=arguments.xfcc_trusted_hops,
        trusted_proxies=tuple(arguments.xfcc_trusted_proxy),
    )
    return Mesh(
        trust_domain=arguments.trust_domain,
        trust_domain_aliases=tuple(arguments.trust_domain_alias),
        root_namespace=arguments.root_namespace,
        namespace=arguments.namespace,
        labels=tuple(sorted(arguments.label)),
        remote_ip_hops=arguments.remote_ip_hops,
        remote_ip_header=arguments.remote_ip_header.lower(),
        peer=peer,
        posture=Posture(arguments.posture),
    )


def trust_domain(text: str) -> str:
    """A trust domain, or argparse's error."""
    if not is_trust_domain(text):
        raise argparse.ArgumentTypeError(f"trust domain `{text}`: lower-case letters, digits, `.`, `-` and `_` only")
    return text


def workload(text: str) -> SpiffeId:
    """The SPIFFE ID of a workload."""
    try:
        found = SpiffeId.parse(text)
    except SpiffeIdError as error:
        raise argparse.ArgumentTypeError(f"`{text}` is no SPIFFE ID: {error}") from error
    if not found.path:
        raise argparse.ArgumentTypeError(f"`{text}` is a trust domain's SPIFFE ID, not a workload's")
    return found


def label(text: str) -> tuple[str, str]:
    """A label as ``K=V``, or argparse's error."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"`{text}`: wants K=V, such as app=httpbin")
    return name, value


def _hops(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"`{text}` is no number of hops, 0 or more")
    return int(text)
