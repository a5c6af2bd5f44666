"""Where a claim is in a token: a path of literal names, and how people write it.

Source: Istio's ``request.auth.claims[a][b]`` (pilot/pkg/security/authz/model).
"""

from collections.abc import Mapping, Sequence
from typing import Any


def claim_at(claims: Mapping[str, Any], path: Sequence[str]) -> Any:  # noqa: ANN401 (any JSON value)
    """The claim at a path of at least one name, None if it is not there; only objects are descended."""
    found = claims.get(path[0])
    for name in path[1:]:
        found = found.get(name) if isinstance(found, dict) else None
    return found


def claim_path(inner: str) -> tuple[str, ...]:
    """``a][b`` is a path of two names; brackets that do not pair up are one literal name, as in Istio."""
    names = inner.split("][")
    return tuple(names) if all(name and not set(name) & {"[", "]"} for name in names) else (inner,)
