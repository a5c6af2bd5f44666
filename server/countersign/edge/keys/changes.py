"""What an operator reads about keys that came and went."""

import logging
from collections.abc import Iterator

from countersign.core.jwt_rule import FetchedKeys
from countersign.tokens.keys import PRIVATE, Key, KeySet


def changes(source: FetchedKeys, before: KeySet | None, after: KeySet) -> Iterator[tuple[int, str]]:
    """A level and a line for each key that is new, gone or put aside. What an issuer wrote is quoted and ASCII.

    An issuer that publishes what only it may have is an error: whoever has seen it can sign.
    """
    old, new = before.keys if before else (), after.keys
    for key in new:
        if key not in old:
            yield logging.INFO, f"new key of {source}: {named(key)}"
    for key in old:
        if key not in new:
            yield logging.INFO, f"key of {source} is gone: {named(key)}"
    for rejected in after.rejected:
        if before is None or rejected not in before.rejected:
            level = logging.ERROR if rejected.why == PRIVATE else logging.WARNING
            kid = ascii(rejected.kid)
            yield level, f"key number {rejected.index + 1} of {source}, kid {kid}, is not used: {rejected.why}"


def named(key: Key) -> str:
    """A key as logs name it: what the issuer calls it, and the start of its thumbprint (RFC 7638, base16)."""
    return f"kid {key.kid!a}, {'/'.join(sorted(key.algorithms))}, thumbprint {key.thumbprint[:16]}"
