"""A request as it goes on: Envoy's token filter has rewritten it before any policy looks at it.

So must it be here: else a policy would believe a header that a client has forged in a token's name, or see a token
that is about to be taken out. Source: Istio's order of filters, `jwt_authn` before `rbac`.
"""

from collections.abc import Sequence
from typing import Final
from urllib.parse import unquote

from countersign.core.decision import Mutations
from countersign.core.facts import HttpRequest

PATH: Final = ":path"


def forwarded(http: HttpRequest, mutations: Mutations) -> HttpRequest:
    """The request with these mutations made."""
    if not (mutations.set_headers or mutations.remove_headers or mutations.remove_query_parameters):
        return http
    path = http.path
    changes: dict[str, tuple[str, ...]] = dict.fromkeys(mutations.remove_headers, ())
    for name, value in mutations.set_headers:
        changes[name] = (*changes.get(name, ()), value)
    if mutations.remove_query_parameters:
        path = _without(path, mutations.remove_query_parameters)
        changes.setdefault(PATH, (path,) * len(http.headers.values(PATH)))
    return HttpRequest(
        method=http.method, path=path, host=http.host, scheme=http.scheme, headers=http.headers.changed(changes)
    )


def _without(path: str, parameters: Sequence[str]) -> str:
    """The path without these query parameters, and without a ``?`` that nothing follows."""
    before, mark, query = path.partition("?")
    if not mark:
        return path
    kept = [pair for pair in query.split("&") if unquote(pair.partition("=")[0]) not in parameters]
    return f"{before}?{'&'.join(kept)}" if kept else before
