"""A request that flags and words describe, to the facts that Envoy would send about it."""

import argparse
import re
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from countersign.cli.described_peer import NONE, DescribedPeer, DescriptionError, add_peer_flags, described_peer
from countersign.core.facts import Endpoint, Headers, HttpRequest, RequestFacts
from countersign.core.identity import XFCC_HEADER, PeerSource
from countersign.snapshot import Mesh

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 5.6.2
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_MAX_PORT: Final = 65535
_MAX_FILE: Final = 64 * 1024  # characters of a token or of claims

# Flags and words that describe a request, by their names in the parsed arguments.
_DESCRIBING: Final = {
    "words": "METHOD PATH",
    "tcp": "--tcp",
    "as_": "--as",
    "certificate": "--certificate",
    "plaintext": "--plaintext",
    "to": "--to",
    "context": "--context",
    "host": "--host",
    "header": "--header",
    "token": "--token",
    "port": "--port",
    "source_ip": "--source-ip",
    "destination_ip": "--destination-ip",
    "sni": "--sni",
}
_OF_HTTP: Final = ("words", "host", "header", "token", "claims")


def add_request_flags(parser: argparse.ArgumentParser) -> None:
    """The words and flags of a request."""
    add = parser.add_argument
    add("words", nargs="*", metavar="METHOD PATH", help="the request, side by side, such as GET /headers")
    add("--tcp", action="store_true", help="in place of METHOD PATH: a connection without HTTP")
    add_peer_flags(parser)
    add("--to", metavar="NS/APP", help="the workload: its namespace, and its label app=APP (more with --label)")
    add("--context", metavar="K=V", action="append", default=[], help="of the route's context_extensions; repeatable")
    add("--host", metavar="HOST", help="the host, with its port if the client writes one")
    add("--header", metavar="'NAME: VALUE'", action="append", default=[], help="a header line; repeatable")
    add("--port", metavar="N", type=_port, help="the workload's port")
    add("--source-ip", metavar="IP", type=_ip, help="the address of the peer")
    add("--destination-ip", metavar="IP", type=_ip, help="the address of the workload")
    add("--sni", metavar="NAME", help="the server name of the TLS handshake")


def refuse_description(arguments: argparse.Namespace, instead: str) -> None:
    """Raise `DescriptionError` if anything describes a request beside the one that ``instead`` gives."""
    for name, flag in _DESCRIBING.items():
        if getattr(arguments, name):
            raise DescriptionError(f"{flag}: {instead} says what the request is")


def described_request(arguments: argparse.Namespace, mesh: Mesh, token: str) -> RequestFacts:
    """The facts of the request; ``token`` is sent as a bearer token. Raise `DescriptionError` or OSError."""
    peer = described_peer(arguments.as_, arguments.certificate)
    http = None if arguments.tcp else _http(arguments, mesh, peer, token)
    if http is None:
        _refuse_http(arguments)
    return RequestFacts(
        http=http,
        source=Endpoint(
            address=arguments.source_ip or "",
            principal=str(mesh.peer.trusted_proxies[0]) if mesh.peer.trusted_proxies else peer.principal,
            certificate="" if mesh.peer.trusted_hops else peer.certificate,  # behind hops it is the last proxy's
        ),
        destination=Endpoint(address=arguments.destination_ip or "", port=arguments.port or 0),
        sni=arguments.sni or ("" if peer is NONE else None),  # plaintext has none; of TLS it is not known
        context_extensions=_context(arguments.context),
    )


def _refuse_http(arguments: argparse.Namespace) -> None:
    """A connection has neither words nor headers, and no policy sees one without both of its ends."""
    for name in _OF_HTTP:
        if getattr(arguments, name):
            raise DescriptionError(f"{_DESCRIBING.get(name, f'--{name}')}: --tcp is a connection without HTTP")
    if not arguments.source_ip or not arguments.destination_ip:
        raise DescriptionError("--tcp: say both ends, --source-ip and --destination-ip")


def _http(arguments: argparse.Namespace, mesh: Mesh, peer: DescribedPeer, token: str) -> HttpRequest:
    method, path = _words(arguments.words)
    scheme = "http" if peer is NONE else "https"
    host = arguments.host or ""
    pairs = [(":method", method), (":path", path), (":scheme", scheme)]
    pairs += [(":authority", host)] if host else []
    pairs += [_header(text) for text in arguments.header]
    if token:
        if any(name.lower() == "authorization" for name, _ in pairs):
            raise DescriptionError("--token: there is an authorization header already")
        pairs.append(("authorization", f"Bearer {token}"))
    if peer.element and mesh.peer.source is PeerSource.XFCC and all(name.lower() != XFCC_HEADER for name, _ in pairs):
        pairs.append((XFCC_HEADER, peer.element + ",URI=" * mesh.peer.trusted_hops))
    return HttpRequest(method=method, path=path, host=host, scheme=scheme, headers=Headers.of(pairs))


def towards(mesh: Mesh, to: str | None) -> Mesh:
    """The mesh, its workload being the one of ``--to``. Raise `DescriptionError`."""
    if to is None:
        return mesh
    namespace, slash, app = to.partition("/")
    if not namespace or not slash or not app or "/" in app:
        raise DescriptionError(f"--to {to}: wants NS/APP, such as apps/httpbin")
    labels = dict(mesh.labels)
    if mesh.namespace not in ("", namespace) or labels.get("app", app) != app:
        raise DescriptionError(f"--to {to}: --namespace or --label says something else")
    return replace(mesh, namespace=namespace, labels=tuple(sorted({**labels, "app": app}.items())))


def text_or_file(flag: str, text: str) -> str:
    """The text itself, or of ``@FILE`` what the file says. Raise `DescriptionError` or OSError."""
    if not text.startswith("@"):
        return text
    path = Path(text[1:])
    try:
        with path.open(encoding="utf-8") as file:
            content = file.read(_MAX_FILE + 1)
    except UnicodeDecodeError as error:
        raise DescriptionError(f"{flag} {text}: not UTF-8 at byte {error.start}") from error
    if len(content) > _MAX_FILE:
        raise DescriptionError(f"{flag} {text}: longer than {_MAX_FILE} characters")
    return content.strip()


def _words(words: list[str]) -> tuple[str, str]:
    if len(words) != 2:  # noqa: PLR2004 (METHOD and PATH)
        raise DescriptionError("wants METHOD and PATH, such as GET /headers, or --request FILE")
    method, path = words
    if _TOKEN.fullmatch(method) is None:
        raise DescriptionError(f"`{method}` is no HTTP method")
    if not path.startswith("/") and path != "*":
        raise DescriptionError(f"`{path}` is no path: it starts with `/`")
    return method, path


def _context(texts: list[str]) -> dict[str, str]:
    context: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise DescriptionError(f"--context {text}: wants K=V, such as workload.services=Service/apps/shop")
        if key in context:
            raise DescriptionError(f"--context {key}: given twice")
        context[key] = value
    return context


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or _TOKEN.fullmatch(name) is None:  # the text is not repeated: it may be a credential
        raise DescriptionError("--header: wants 'NAME: VALUE', such as 'x-tier: gold'")
    if name.lower() == "host":
        raise DescriptionError("--header host: say --host")
    if _CONTROLS.search(value):
        raise DescriptionError(f"--header {name}: a control character in the value")
    return name, value.strip(" \t")


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= _MAX_PORT:
        raise argparse.ArgumentTypeError(f"`{text}` is no port, 1 to {_MAX_PORT}")
    return int(text)


def _ip(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"`{text}` is no IP address") from error
