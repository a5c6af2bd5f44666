"""Where a random request carries its tokens: where the rules look for them, or elsewhere."""

from collections.abc import Callable, Sequence
from random import Random
from typing import Final

from tests.envoy.judge.jwt_authn import rules_of
from tests.envoy.judge.matchers import Json
from tests.envoy.judge.policy_set import PolicySet
from tests.envoy.judge.tokens import Token

Headers = list[tuple[str, str]]

_ODD_SCHEMES: Final = ("bearer ", "Basic ", "", "Bearer  ", "Bearer,")
_PREFLIGHT: Final = ("https://o.example", "null", "")


def carry(rng: Random, policies: PolicySet, minted: Sequence[Token], headers: Headers) -> tuple[tuple[Token, ...], str]:
    """Put tokens into the headers. Give them, and what goes into the query."""
    rules = rules_of(policies.applying("RequestAuthentication"))
    only_users = bool(rules) and not policies.applying("AuthorizationPolicy")
    issuers = {rule["issuer"] for rule in rules}
    carried: list[Token] = []
    query: list[str] = []
    for _ in range(rng.choice((0, 1, 1, 1, 1, 2, 2, 3) if rules else (0, 0, 0, 1))):
        good = rng.random() < (0.9 if only_users else 0.7)
        fitting = [
            token for token in minted if (token.kind == "good") == good and (not issuers or token.issuer in issuers)
        ]
        token = rng.choice(fitting if fitting and rng.random() < 0.9 else minted)
        carried.append(token)
        owners = [rule for rule in rules if rule["issuer"] == token.issuer] if rng.random() < 0.7 else []
        _place(rng, rng.choice(owners or rules) if rules else {}, token.text, headers, query)
    if rules:
        _add_what_rules_notice(rng, rules, headers)
    return tuple(carried), "&".join(query)


def method(rng: Random, headers: Headers, otherwise: str) -> str:
    """OPTIONS, more often where the headers are those of a preflight."""
    return "OPTIONS" if rng.random() < 0.7 and "origin" in dict(headers) else otherwise


def _add_what_rules_notice(rng: Random, rules: Sequence[Json], headers: Headers) -> None:
    """Headers that a rule writes, which a client must not; a preflight; a gRPC caller."""
    written = [each["header"] for rule in rules for each in rule.get("outputClaimToHeaders", ())]
    written += [rule["outputPayloadToHeader"] for rule in rules if "outputPayloadToHeader" in rule]
    if written and rng.random() < 0.4:
        headers.append((rng.choice(written), rng.choice(("root", "admin", "user"))))
    if rng.random() < 0.07:
        headers.append(("origin", rng.choice(_PREFLIGHT)))
        headers.append(("access-control-request-method", rng.choice(("GET", "PUT", ""))))
    if rng.random() < 0.08:
        headers.append(("content-type", rng.choice(("application/grpc", "application/grpc+proto"))))


def _place(rng: Random, rule: Json, token: str, headers: Headers, query: list[str]) -> None:
    name = rng.choice(("token", "access_token", "jwt"))
    own = rule.get("fromHeaders") or rule.get("fromParams") or rule.get("fromCookies")
    places: list[Callable[[], None]] = [
        *(lambda: headers.append(("authorization", f"Bearer {token}")),) * (2 if own else 12),
        lambda: headers.append(("Authorization", rng.choice(_ODD_SCHEMES) + token)),
        lambda: query.append(f"{name}={token}"),
        lambda: headers.append(("x-jwt", token)),
        lambda: headers.append(("cookie", f"a=b; {rng.choice(('session', 'jwt'))}={token}")),
    ]
    for each in rule.get("fromHeaders", ()):
        line = (each["name"], each.get("prefix", "") + token)
        places += [lambda line=line: headers.append(line)] * 6  # type: ignore[misc]  # the default binds the loop's value
    for each in rule.get("fromParams", ()):
        places += [lambda each=each: query.append(f"{each}={token}")] * 6  # type: ignore[misc]  # likewise
    for each in rule.get("fromCookies", ()):
        places += [lambda each=each: headers.append(("cookie", f"{each}={token}; c=d"))] * 6  # type: ignore[misc]  # likewise
    rng.choice(places)()
