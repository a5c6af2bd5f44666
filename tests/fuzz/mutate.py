"""A mutator that knows CheckRequests: octets changed at random are hardly ever one, and only try the codec."""

from collections.abc import Callable
from random import Random
from typing import Any, Final

from countersign.wire import auth_pb2 as pb
from google.protobuf.message import DecodeError

Mutate = Callable[[bytes, int], bytes]

_LONGEST: Final = 300  # octets of one field
_UNREADABLE: Final = 0.2  # how often the octets themselves are changed
_CERTIFIED: Final = ("spiffe://cluster.local/ns/apps/sa/sleep", "spiffe://cluster.local/ns/x/sa/y", "")
_NAMES: Final = ("authorization", "x-user", "cookie", "x-forwarded-client-cert", "x-forwarded-for", ":path", "origin")


def mutate_check(data: bytes, longest: int, seed: int, mutate: Mutate) -> bytes:
    """Change one or a few fields of a CheckRequest. ``mutate`` changes octets."""
    rng = Random(seed)  # noqa: S311 (repeatable, not secret)
    if rng.random() < _UNREADABLE:
        return mutate(data, longest)
    try:
        message = pb.CheckRequest.FromString(data)
    except DecodeError:
        return mutate(data, longest)
    for _ in range(rng.choice((1, 1, 2, 3))):
        rng.choice(_CHANGES)(message.attributes, rng, lambda text: _changed(text, mutate))
    return message.SerializeToString()[:longest]


def _changed(text: str, mutate: Mutate) -> str:
    return mutate(text.encode(), _LONGEST).decode("utf-8", "ignore")


Change = Callable[[Any, Random, Callable[[str], str]], None]


def _request_line(attributes: Any, rng: Random, changed: Callable[[str], str]) -> None:
    field = rng.choice(("method", "path", "host", "scheme"))
    setattr(attributes.request.http, field, changed(getattr(attributes.request.http, field)))


def _peer(attributes: Any, rng: Random, changed: Callable[[str], str]) -> None:
    principal = rng.choice(_CERTIFIED)
    attributes.source.principal = principal if rng.random() < 0.5 else changed(principal)


def _header(attributes: Any, rng: Random, changed: Callable[[str], str]) -> None:
    headers = attributes.request.http.headers
    name = rng.choice((*headers, *_NAMES))
    headers[name] = changed(headers.get(name, ""))


def _line(attributes: Any, rng: Random, changed: Callable[[str], str]) -> None:
    lines = attributes.request.http.header_map.headers
    if lines and rng.random() < 0.7:
        line = rng.choice(lines)
        line.raw_value = changed(line.raw_value.decode("utf-8", "ignore")).encode()
    elif lines:
        lines.append(rng.choice(lines))
    else:
        lines.add(key=rng.choice(_NAMES), raw_value=changed("").encode())


def _gone(attributes: Any, rng: Random, _: Callable[[str], str]) -> None:
    field, parent = rng.choice(
        (("source", attributes), ("destination", attributes), ("http", attributes.request),
         ("header_map", attributes.request.http), ("address", attributes.source))
    )  # fmt: skip
    parent.ClearField(field)


def _around(attributes: Any, rng: Random, changed: Callable[[str], str]) -> None:
    extensions = attributes.context_extensions
    name = rng.choice(("workload.namespace", "workload.labels", "workload.service_account", "workload.gateway"))
    extensions[name] = changed(extensions.get(name, "a=b"))
    attributes.tls_session.sni = changed(attributes.tls_session.sni)


_CHANGES: Final[tuple[Change, ...]] = (_request_line, _request_line, _peer, _header, _line, _line, _gone, _around)
