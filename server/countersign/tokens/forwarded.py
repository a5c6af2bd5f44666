"""A request as it goes on: Envoy's token filter has rewritten it before any policy looks at it.

So must it be here: else a policy would believe a header that a client has forged in a token's name, or see a token
that is about to be taken out. Source: Istio's order of filters, `jwt_authn` before `rbac`.
"""

from collections.abc import Sequence
from dataclasses import replace
from urllib.parse import unquote

from countersign.core.decision import Mutations
from countersign.core.facts import Headers, HttpRequest

_PATH = ":path"


def forwarded(http: HttpRequest, mutations: Mutations) -> HttpRequest:
    """The request with these mutations made."""
    if mutations == Mutations():
        return http
    replaced = {name for name, _ in mutations.set_headers} | set(mutations.remove_headers)
    path = _without(http.path, mutations.remove_query_parameters)
    kept = [
        (name, path if name == _PATH else value)
        for name in http.headers.names()
        if name not in replaced
        for value in http.headers.values(name)
    ]
    headers = Headers.of((*kept, *mutations.set_headers), joined=http.headers.joined)
    return replace(http, path=path, headers=headers)


def _without(path: str, parameters: Sequence[str]) -> str:
    """The path without these query parameters, and without a ``?`` that nothing follows."""
    before, mark, query = path.partition("?")
    if not mark or not parameters:
        return path
    kept = [pair for pair in query.split("&") if unquote(pair.partition("=")[0]) not in parameters]
    return f"{before}?{'&'.join(kept)}" if kept else before
