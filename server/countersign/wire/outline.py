"""What a check asks, apart from what is different in every check: so that the same question can be known again.

An `Ask` has everything that a decision may rest on, and the facts of such a question are read from a check that is
made of it and of nothing else (`payload_of`): two checks with the same `Ask` have the same facts. Left out are what
no rule can ask about (IDs, times, the client's port) and the header lines whose names are not among those that are
read. Whoever asks the facts for another header learns of it by an exception.

Lines are told by their whole names, folded as `codec.decode` folds them. A line too many does no harm; one too few
would hide a header from the rules.
"""

from collections.abc import Iterable
from typing import Any, Final

from countersign.wire.codec import is_sound
from countersign.wire.outline_pb2 import Outline

# method, path, host, scheme; source: address, principal, certificate; destination: address, port, principal, labels;
# TLS session or None; context extensions; metadata; whether lines are raw; lines. Of maps, the entries in order.
Ask = tuple[Any, ...]

_NAME_TAG: Final = 0x0A  # the field `key` of a HeaderValue and of an entry of a map, length-delimited
_SHORT: Final = 127  # octets of a name whose length is one octet (a varint); longer ones are all taken along


class Asking:
    """Takes checks apart. ``names`` are the (lower-case) headers that are read."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = frozenset(names)

    def ask(self, payload: bytes) -> Ask | None:
        """The question in a serialized CheckRequest; None for what is not sound, or not about HTTP."""
        if not is_sound(payload):
            return None
        attributes = Outline.FromString(payload).attributes
        if not attributes.request.HasField("http"):
            return None
        http, source, destination = attributes.request.http, attributes.source, attributes.destination
        socket = destination.address.socket_address
        raw = http.HasField("header_map")
        lines = http.header_map.headers if raw else http.headers
        if not lines:
            return None
        names = self.names
        looked_at = [
            line
            for line in lines
            if line[0] != _NAME_TAG or line[1] > _SHORT or line[2 : 2 + line[1]].decode().lower() in names
        ]
        return (
            http.method,
            http.path,
            http.host,
            http.scheme,
            source.address.socket_address.address,
            source.principal,
            source.certificate,
            socket.address,
            socket.port_value,
            destination.principal,
            tuple(sorted(destination.labels)),
            attributes.tls_session if attributes.HasField("tls_session") else None,
            tuple(sorted(attributes.context_extensions)),
            attributes.metadata_context,
            raw,
            tuple(looked_at if raw else sorted(looked_at)),
        )


def payload_of(ask: Ask) -> bytes:
    """A serialized CheckRequest that asks just this."""
    method, path, host, scheme, *rest = ask
    address, principal, certificate, own_address, port, own_principal, labels, *rest = rest
    tls_session, extensions, metadata, raw, lines = rest
    http = Outline.HttpRequest(method=method, path=path, host=host, scheme=scheme)
    if raw:
        http.header_map.headers.extend(lines)
    else:
        http.headers.extend(lines)
    source = Outline.Peer(principal=principal, certificate=certificate)
    source.address.socket_address.address = address
    destination = Outline.Peer(principal=own_principal, labels=labels)
    destination.address.socket_address.address = own_address
    destination.address.socket_address.port_value = port
    attributes = Outline.Attributes(
        source=source,
        destination=destination,
        request=Outline.Request(http=http),
        context_extensions=extensions,
        metadata_context=metadata,
        tls_session=tls_session,
    )
    return Outline(attributes=attributes).SerializeToString()
