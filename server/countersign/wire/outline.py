"""What a check asks, apart from what is different in every check: so that the same question can be known again.

An `Ask` has everything that a decision may rest on, and the facts of a question are read from it and from nothing else
(`facts_of`): two checks with the same `Ask` have the same facts. Left out are what
no rule can ask about (IDs, times, the client's port) and the header lines whose names are not among those that are
read. Whoever asks the facts for another header learns of it by an exception.

Lines are told by their whole names, folded as `codec.decode` folds them. A line too many does no harm; one too few
would hide a header from the rules.
"""

from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

from countersign.core.facts import Endpoint, HttpRequest, RequestFacts
from countersign.wire import auth_pb2 as pb
from countersign.wire.codec import is_sound, joined_headers, metadata_of, raw_headers, server_name
from countersign.wire.outline_pb2 import Outline

# method, path, host, scheme; source; destination; TLS session if any; context extensions; metadata if any; whether
# lines are raw; lines. Of maps, the entries in order.
Ask = tuple[Any, ...]
_Peer = tuple[str, int, str, str, tuple[bytes, ...]]  # address, port, principal, certificate, labels

_NAME_TAG: Final = 0x0A  # the field `key` of a HeaderValue and of an entry of a map, length-delimited
_SHORT: Final = 127  # octets of a name whose length is one octet (a varint); longer ones are all taken along
_KEPT: Final = 512  # peers, and beginnings of lines, that are not taken apart again
_LARGE: Final = 16 * 1024  # octets of a peer that are too many to be kept


class _Heads(dict[bytes, bool]):
    """Whether lines that begin with a tag, a length and a name are looked at."""

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names

    def __missing__(self, head: bytes) -> bool:
        if head[0] != _NAME_TAG or head[1] > _SHORT:  # not a name first, or not all of it
            return True
        if len(self) >= _KEPT:
            self.clear()
        looked_at = self[head] = head[2:].decode().lower() in self._names
        return looked_at


class _Peers(dict[bytes, _Peer]):
    """Peers as they were read from their octets. A connection has the same ones all its life."""

    def __init__(self, *, client: bool) -> None:
        self._client = client

    def __missing__(self, octets: bytes) -> _Peer:
        peer = Outline.Peer.FromString(octets)
        socket = peer.address.socket_address
        # Nothing can ask about a client's port and labels; without them its other connections ask the same.
        port, labels = (0, ()) if self._client else (socket.port_value, tuple(sorted(peer.labels)))
        read = (socket.address, port, peer.principal, peer.certificate, labels)
        if len(octets) <= _LARGE:
            if len(self) >= _KEPT:
                self.clear()
            self[octets] = read
        return read


class Asking:
    """Takes checks apart. ``names`` are the (lower-case) headers that are read. Any thread may use it."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = frozenset(names)
        self._heads = _Heads(self.names)
        self._sources = _Peers(client=True)
        self._destinations = _Peers(client=False)

    def ask(self, payload: bytes) -> Ask | None:
        """The question in a serialized CheckRequest; None for what is not sound, twice there, or not about HTTP."""
        if not is_sound(payload):
            return None
        attributes = Outline.FromString(payload).attributes
        http = attributes.request.http
        try:
            (source,), (destination,) = attributes.source[:], attributes.destination[:]
        except ValueError:
            return None
        tls_session, metadata = tuple(attributes.tls_session[:]), tuple(attributes.metadata_context[:])
        raw = http.HasField("header_map")
        lines = (http.header_map.headers if raw else http.headers)[:]
        if not lines or len(tls_session) > 1 or len(metadata) > 1:
            return None
        heads = self._heads
        try:
            looked_at = [line for line in lines if heads[line[: 2 + line[1]]]]
        except IndexError:  # a line of nothing
            return None
        return (
            http.method,
            http.path,
            http.host,
            http.scheme,
            self._sources[source],
            self._destinations[destination],
            tls_session,
            tuple(sorted(attributes.context_extensions[:])),
            metadata,
            raw,
            tuple(looked_at if raw else sorted(looked_at)),
        )


def facts_of(ask: Ask, names: Collection[str]) -> RequestFacts | None:
    """What is asked, to be judged: of the headers only ``names``, any other raises LookupError (`Headers.only`).

    None where that is not enough to be judged.
    """
    method, path, host, scheme, source, destination, tls_session, extensions, metadata, raw, lines = ask
    read = [pb.HeaderValue.FromString(line) for line in lines]  # an entry of a map has the same first two fields
    headers = raw_headers(read) if raw else joined_headers({line.key: line.value for line in read})
    if not headers:
        return None
    return RequestFacts(
        http=HttpRequest(method=method, path=path, host=host, scheme=scheme, headers=headers.only(names)),
        source=_endpoint_of(source),
        destination=_endpoint_of(destination),
        sni=_server_name_of(tls_session[0]) if tls_session else None,
        context_extensions=_entries(extensions) if extensions else {},
        metadata=_metadata_of(metadata[0]) if metadata else {},
    )


def _endpoint_of(peer: _Peer) -> Endpoint:
    address, port, principal, certificate, labels = peer
    return Endpoint(
        address=address,
        port=port,
        principal=principal,
        certificate=certificate,
        labels=_entries(labels) if labels else {},
    )


@lru_cache(_KEPT)
def _entries(entries: tuple[bytes, ...]) -> Mapping[str, str]:
    """A map of texts. Routes and listeners have the same ones in every check."""
    read = map(pb.HeaderValue.FromString, entries)
    return MappingProxyType({entry.key: entry.value for entry in read})


@lru_cache(_KEPT)
def _server_name_of(octets: bytes) -> str:
    """The SNI of a session. A connection has the same one all its life."""
    return server_name(pb.AttributeContext.TLSSession.FromString(octets))


def _metadata_of(octets: bytes) -> Mapping[str, Mapping[str, Any]]:
    return metadata_of(pb.Metadata.FromString(octets))
