"""Random RequestAuthentications: every field of a rule, in the forms that Istio accepts."""

from random import Random
from typing import Final

from tests.envoy.judge import tokens
from tests.envoy.judge import vocabulary as words
from tests.envoy.judge.key_server import BROKEN, DISCOVERED, uri
from tests.envoy.judge.matchers import Json

_AUDIENCES: Final = ("svc", "other", "https://svc", "http://svc/", "elsewhere/")
_HEADERS: Final[tuple[Json, ...]] = (
    {"name": "x-jwt"},
    {"name": "X-Jwt", "prefix": "Token "},
    {"name": "authorization", "prefix": "Bearer "},
    {"name": "authorization"},
)
_CLAIMS: Final = (
    "sub", "role", "groups", "level", "ratio", "ok", "big", "nested", "nested.team", "nested.deep.x", "a.b", "missing",
    "scope", "note", "list", "object",
)  # fmt: skip


def users(rng: Random) -> Json:
    """The spec of a RequestAuthentication."""
    return {"jwtRules": [_jwt_rule(rng) for _ in range(rng.choice((1, 1, 2, 3)))]}


def _jwt_rule(rng: Random) -> Json:
    issuer = rng.choice(list(tokens.ISSUERS))
    return {"issuer": issuer, **_keys(rng, issuer), **_wanted(rng), **_written(rng)}


def _keys(rng: Random, issuer: str) -> Json:
    """Keys in the rule, at a place that it names, at the one that its issuer tells, or nowhere."""
    form, variant = rng.random(), rng.randrange(6)
    if form < 0.65:
        return {"jwks": tokens.jwks(issuer, variant)}
    if form < 0.95:
        return {} if issuer == DISCOVERED else {"jwksUri": uri(tokens.number(issuer), variant)}
    return {"jwksUri": rng.choice(BROKEN)}


def _wanted(rng: Random) -> Json:
    """Where a token is, and what it must say."""
    found: Json = {}
    if rng.random() < 0.25:
        found["audiences"] = rng.sample(_AUDIENCES, rng.choice((1, 2)))
    if rng.random() < 0.25:
        found["fromHeaders"] = rng.sample(_HEADERS, rng.choice((1, 2)))
    if rng.random() < 0.2:
        found["fromParams"] = rng.sample(("token", "access_token", "jwt"), rng.choice((1, 2)))
    if rng.random() < 0.2:
        found["fromCookies"] = rng.sample(("session", "jwt"), rng.choice((1, 2)))
    if rng.random() < 0.1:
        found["presence"] = rng.choice(("REQUIRED", "REQUIRED", "OPTIONAL"))
    return found


def _written(rng: Random) -> Json:
    """What becomes of a token."""
    found: Json = {}
    if rng.random() < 0.25:
        found["outputPayloadToHeader"] = rng.choice(words.OUTPUTS)
    if rng.random() < 0.5:
        headers = rng.sample(words.OUTPUTS, rng.choice((1, 2, 3)))
        found["outputClaimToHeaders"] = [{"header": header, "claim": rng.choice(_CLAIMS)} for header in headers]
    if rng.random() < 0.3:
        found["forwardOriginalToken"] = rng.choice((True, True, False))
    if rng.random() < 0.15:
        found["spaceDelimitedClaims"] = rng.sample(("custom.claim", "role", "groups", "note"), rng.choice((1, 2)))
    if rng.random() < 0.1:
        found["timeout"] = rng.choice(("5s", "0.5s"))
    return found
