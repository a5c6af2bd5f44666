"""The metadata of a gRPC call: what the caller says beside its check, to be believed as little.

Transports hand it over only where somebody traces; else it is empty.
"""

from collections.abc import Sequence

# Names are in lower case; a value is octets where its name ends in ``-bin``.
Metadata = Sequence[tuple[str, str | bytes]]


def texts(metadata: Metadata, name: str) -> tuple[str, ...]:
    """Every value of that name, in the order they came."""
    return tuple(value for key, value in metadata if key == name and isinstance(value, str))
