"""A request that somebody describes in words, to the facts that Envoy would send about it.

The words are those of the flags of `countersign explain`; the admin API takes the same.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Final

from countersign.core.facts import Endpoint, Headers, HttpRequest, RequestFacts
from countersign.core.identity import XFCC_HEADER, PeerSource
from countersign.explanation.described_peer import NONE, DescribedPeer, DescriptionError, described_peer
from countersign.snapshot import Mesh

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 5.6.2
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_MAX_PORT: Final = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What is said of a request; what is not said is empty.

    ``headers`` are ``NAME: VALUE``, ``context`` is ``K=V``, ``certificate`` the peer's in DER. A ``tcp`` connection has
    neither method nor path.
    """

    method: str = ""
    path: str = ""
    tcp: bool = False
    as_: str | None = None
    certificate: bytes | None = None
    context: Sequence[str] = ()
    host: str = ""
    headers: Sequence[str] = ()
    token: str = ""
    port: int = 0
    source_ip: str = ""
    destination_ip: str = ""
    sni: str = ""


def described_request(said: Description, mesh: Mesh) -> RequestFacts:
    """The facts of the request; the token is sent as a bearer token. Raise `DescriptionError`."""
    peer = described_peer(said.as_, said.certificate)
    if said.tcp:
        _refuse_http(said)
    return RequestFacts(
        http=None if said.tcp else _http(said, mesh, peer),
        source=Endpoint(
            address=said.source_ip,
            principal=str(mesh.peer.trusted_proxies[0]) if mesh.peer.trusted_proxies else peer.principal,
            certificate="" if mesh.peer.trusted_hops else peer.certificate,  # behind hops it is the last proxy's
        ),
        destination=Endpoint(address=said.destination_ip, port=said.port),
        sni=said.sni or ("" if peer is NONE else None),  # plaintext has none; of TLS it is not known
        context_extensions=_context(said.context),
    )


def towards(mesh: Mesh, to: str | None) -> Mesh:
    """The mesh, its workload being the one that is named. Raise `DescriptionError`."""
    if to is None:
        return mesh
    namespace, slash, app = to.partition("/")
    if not namespace or not slash or not app or "/" in app:
        raise DescriptionError("wants NS/APP, such as apps/httpbin", "to", to)
    labels = dict(mesh.labels)
    if mesh.namespace not in ("", namespace) or labels.get("app", app) != app:
        raise DescriptionError("--namespace or --label says something else", "to", to)
    return replace(mesh, namespace=namespace, labels=tuple(sorted({**labels, "app": app}.items())))


def port(text: str) -> int:
    """The port of a text. Raise ValueError."""
    if not text.isascii() or not text.isdigit() or len(text) > len(str(_MAX_PORT)) or not 0 < int(text) <= _MAX_PORT:
        raise ValueError(f"`{text}` is no port, 1 to {_MAX_PORT}")
    return int(text)


def ip(text: str) -> str:
    """The IP address of a text, as Envoy writes it. Raise ValueError."""
    try:
        return str(ip_address(text))
    except ValueError as error:
        raise ValueError(f"`{text}` is no IP address") from error


def _refuse_http(said: Description) -> None:
    """A connection has neither words nor headers, and no policy sees one without both of its ends."""
    for part, there in (("host", said.host), ("header", said.headers), ("token", said.token)):
        if there:
            raise DescriptionError("--tcp is a connection without HTTP", part)
    if said.method or said.path:
        raise DescriptionError("METHOD PATH: --tcp is a connection without HTTP")
    if not said.source_ip or not said.destination_ip:
        raise DescriptionError("say both ends, --source-ip and --destination-ip", "tcp")


def _http(said: Description, mesh: Mesh, peer: DescribedPeer) -> HttpRequest:
    method, path, host = said.method, said.path, said.host
    if _TOKEN.fullmatch(method) is None:
        raise DescriptionError(f"`{method}` is no HTTP method")
    if not path.startswith("/") and path != "*":
        raise DescriptionError(f"`{path}` is no path: it starts with `/`")
    scheme = "http" if peer is NONE else "https"
    pairs = [(":method", method), (":path", path), (":scheme", scheme)]
    pairs += [(":authority", host)] if host else []
    pairs += [_header(text) for text in said.headers]
    if said.token:
        if any(name.lower() == "authorization" for name, _ in pairs):
            raise DescriptionError("there is an authorization header already", "token")
        pairs.append(("authorization", f"Bearer {said.token}"))
    if peer.element and mesh.peer.source is PeerSource.XFCC and all(name.lower() != XFCC_HEADER for name, _ in pairs):
        pairs.append((XFCC_HEADER, peer.element + ",URI=" * mesh.peer.trusted_hops))
    return HttpRequest(method=method, path=path, host=host, scheme=scheme, headers=Headers.of(pairs))


def _context(texts: Sequence[str]) -> dict[str, str]:
    context: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise DescriptionError("wants K=V, such as workload.services=Service/apps/shop", "context", text)
        if key in context:
            raise DescriptionError("given twice", "context", key)
        context[key] = value
    return context


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or _TOKEN.fullmatch(name) is None:  # the text is not repeated: it may be a credential
        raise DescriptionError("wants 'NAME: VALUE', such as 'x-tier: gold'", "header")
    if name.lower() == "host":
        raise DescriptionError("say --host", "header", name)
    if _CONTROLS.search(value):
        raise DescriptionError("a control character in the value", "header", name)
    return name, value.strip(" \t")
