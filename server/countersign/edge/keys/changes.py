"""What an operator reads about keys that came and went."""

from collections.abc import Iterator

from countersign.core.jwt_rule import FetchedKeys
from countersign.tokens.keys import Key, KeySet


def changes(source: FetchedKeys, before: KeySet | None, after: KeySet) -> Iterator[str]:
    """A line for each key that is new, gone or put aside. What an issuer wrote is quoted and ASCII."""
    old, new = before.keys if before else (), after.keys
    for key in new:
        if key not in old:
            yield f"new key of {source}: {named(key)}"
    for key in old:
        if key not in new:
            yield f"key of {source} is gone: {named(key)}"
    for rejected in after.rejected:
        if before is None or rejected not in before.rejected:
            yield f"key number {rejected.index + 1} of {source}, kid {rejected.kid!a}, is not used: {rejected.why}"


def named(key: Key) -> str:
    """A key as logs name it: what the issuer calls it, and the start of its thumbprint (RFC 7638, base16)."""
    return f"kid {key.kid!a}, {'/'.join(sorted(key.algorithms))}, thumbprint {key.thumbprint[:16]}"
