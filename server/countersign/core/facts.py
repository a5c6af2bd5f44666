"""What Envoy said about one request: typed, unproven, and free of Envoy's wire types.

Nothing here is trusted. An identity comes out of `core.identity` and `tokens`, never out of a header by itself.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import field
from typing import Any, Final, Protocol

from countersign.core.per_check import per_check

_NOTHING: Final[tuple[str, ...]] = ()
_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")


class Lines(Protocol):
    """Header lines by lower-case name: a dictionary, or what reads them where they are when they are asked for."""

    def get(self, name: str, default: tuple[str, ...], /) -> tuple[str, ...]:
        """Every line of the name, in order of arrival."""

    def keys(self) -> Iterable[str]:
        """The names present."""

    def __len__(self) -> int: ...


class Headers:
    """Header lines by lower-case name, in order of arrival; pseudo-headers (``:path`` ...) included.

    A value that is not UTF-8 keeps its bytes as lone surrogates (PEP 383), so that it compares exactly and
    `is_readable` can tell. ``joined`` says that Envoy has already joined repeated lines with ``,``
    (``encode_raw_headers: false``), so that a comma may hide a second line.
    """

    __slots__ = ("_lines", "joined")

    def __init__(self, lines: Lines, *, joined: bool = False) -> None:
        self._lines = lines
        self.joined = joined

    @classmethod
    def of(cls, pairs: Iterable[tuple[str, str]], *, joined: bool = False) -> "Headers":
        """Collect (name, value) pairs; names are folded to lower case, as HTTP/2 sends them."""
        lines: dict[str, tuple[str, ...]] = {}
        repeated: dict[str, list[str]] = {}
        for name, value in pairs:
            key = name.lower()
            if key in lines:
                repeated.setdefault(key, [*lines[key]]).append(value)
            else:
                lines[key] = (value,)
        lines.update((key, tuple(values)) for key, values in repeated.items())
        return cls(lines, joined=joined)

    def changed(self, changes: Mapping[str, tuple[str, ...]]) -> "Headers":
        """The same headers, but for these (lower-case) names: these lines instead, or none."""
        return Headers(_Changed(self._lines, changes), joined=self.joined)

    def only(self, names: Collection[str]) -> "Headers":
        """The same headers, for whoever reads only these (lower-case) names: any other raises LookupError."""
        return Headers(_Only(self._lines, names), joined=self.joined)

    def values(self, name: str) -> tuple[str, ...]:
        """Every line of the (lower-case) name; empty if there is none."""
        return self._lines.get(name, _NOTHING)

    def names(self) -> Iterable[str]:
        """The lower-case names present."""
        return self._lines.keys()

    def __len__(self) -> int:
        return len(self._lines)


class _Changed:
    """Lines of which some are others."""

    __slots__ = ("_changes", "_lines")

    def __init__(self, lines: Lines, changes: Mapping[str, tuple[str, ...]]) -> None:
        self._lines = lines
        self._changes = changes

    def get(self, name: str, default: tuple[str, ...], /) -> tuple[str, ...]:
        lines = self._changes.get(name)
        return self._lines.get(name, default) if lines is None else lines or default

    def keys(self) -> list[str]:
        kept = [name for name in self._lines.keys() if name not in self._changes]  # noqa: SIM118 (no dictionary)
        return kept + [name for name, lines in self._changes.items() if lines]

    def __len__(self) -> int:
        return len(self.keys())


class _Only:
    """Lines of which only some are known."""

    __slots__ = ("_lines", "_names")

    def __init__(self, lines: Lines, names: Collection[str]) -> None:
        self._lines = lines
        self._names = names

    def get(self, name: str, default: tuple[str, ...], /) -> tuple[str, ...]:
        if name not in self._names:
            raise LookupError("a header is read that is not among those that are")
        return self._lines.get(name, default)

    def keys(self) -> list[str]:
        return [name for name in self._lines.keys() if name in self._names]  # noqa: SIM118 (no dictionary)

    def __len__(self) -> int:
        return len(self.keys())


def is_readable(value: str) -> bool:
    """Whether the value was valid UTF-8 on the wire (see `Headers`)."""
    return value.isascii() or _SURROGATE.search(value) is None


@per_check
class HttpRequest:
    """The HTTP part of a check. ``path`` is as sent, query included; absent attributes are empty strings."""

    method: str
    path: str
    host: str
    scheme: str = ""
    headers: Headers


@per_check
class Endpoint:
    """One side of the connection. ``address`` is textual and empty for a pipe; ``port`` is 0 if unknown.

    ``principal`` is Envoy's: first URI SAN, else first DNS SAN, else the subject; empty without TLS.
    ``certificate`` is URL-encoded PEM, empty unless Envoy's ``include_peer_certificate`` is set.
    """

    address: str = ""
    port: int = 0
    principal: str = ""
    certificate: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


@per_check
class RequestFacts:
    """One CheckRequest. ``http`` is None when a network filter asks (Istio's TCP case).

    ``sni`` is in lower case, as Envoy's own filters see it; None if Envoy does not say (``include_tls_session``).
    ``metadata`` is what other filters wrote: namespace -> key -> value.
    """

    http: HttpRequest | None
    source: Endpoint
    destination: Endpoint
    sni: str | None = ""
    context_extensions: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def with_http(self, http: HttpRequest) -> "RequestFacts":
        """The same but for the HTTP part, in less time than `dataclasses.replace` takes."""
        return RequestFacts(
            http=http,
            source=self.source,
            destination=self.destination,
            sni=self.sni,
            context_extensions=self.context_extensions,
            metadata=self.metadata,
        )
