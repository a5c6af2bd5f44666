"""What Countersign does otherwise than Envoy on purpose, in both postures; each is as narrow as it can be told.

Every one of them is about tokens, and none lets a request through that Envoy refuses.
"""

import base64
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from tests.envoy.judge.arena import Verdict
from tests.envoy.judge.cases import Case
from tests.envoy.judge.client import Request
from tests.envoy.judge.jwt_authn import rules_of
from tests.envoy.judge.key_server import BROKEN
from tests.envoy.judge.matchers import Json
from tests.envoy.judge.policy_set import PolicySet
from tests.envoy.judge.tokens import SYMMETRIC

_QUERY_OF_REALM: Final = re.compile(r'\?.*?(?="(?:, error="invalid_token")?\Z)')
_QUERY: Final = re.compile(r"[?&]([^=&#]*)=")
_COOKIE: Final = re.compile(r"(?:^|;) *([^=;]*)=")
_BEARER: Final = ({"name": "authorization", "prefix": "Bearer "},)
_UNSUPPORTED: Final = "Jwt header [alg] is not supported"
_NO_KEY: Final = "Jwks doesn't have key to match kid or alg from Jwt"
_NOT_FETCHED: Final = "Jwks remote fetch is failed"
_TRIED: Final = "Jwt verification fails"
_NOT_THREE: Final = "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections"
_NOT_SHOWN: Final = "(Jwt)"


def is_known(native: Verdict, own: Verdict, policies: PolicySet, case: Case) -> bool:
    """Whether the answers differ in one of the ways that are meant."""
    rules = rules_of(policies.applying("RequestAuthentication"))
    several = [rule for rule in rules if _tokens(rule, case.request) > 1]
    if native.received is not None and own.received is not None:
        return _is_known_for_workload(native.received, own.received, rules, several)
    if own.allowed or "Jw" not in _said(own):
        return False
    symmetric = any(token.kind == SYMMETRIC for token in case.tokens)
    return bool(
        # Envoy takes out the header of one good token before it looks at the next; if that is bad, the rule fails, but
        # asked again its tokens are "missing". Here all tokens of a rule must be good, as a comment of Envoy's wants.
        several
        # No issuer's token here is symmetric. Envoy takes "HS256" for a good ES256 signature if the key has no `alg`.
        or (symmetric and _said(own) in (_UNSUPPORTED, _NOT_SHOWN))
        or (not native.allowed and _is_other_word(_said(native), _said(own), rules, case.request))
    )


def without_query(verdict: Verdict) -> Verdict:
    """The answer, its challenge without the query of the request, which may have a token."""
    headers = tuple(
        (name, _QUERY_OF_REALM.sub("", value) if name == "www-authenticate" and value else value)
        for name, value in verdict.headers
    )
    return replace(verdict, headers=headers)


def canonical(line: str) -> str:
    """The line, but for a claim that is an object: Envoy writes its members in no particular order."""
    name, _, value = line.partition(": ")
    try:
        return f"{name}: {json.dumps(json.loads(base64.b64decode(value, validate=True)), sort_keys=True)}"
    except ValueError:
        return line


def _said(verdict: Verdict) -> str:
    """What an answer says of a token; the answer to a HEAD says only that there is something."""
    headers = dict(verdict.headers)
    return verdict.body or headers.get("grpc-message") or (_NOT_SHOWN if headers.get("www-authenticate") else "")


def _is_other_word(native: str, own: str, rules: Sequence[Json], request: Request) -> bool:
    """Whether both refuse a token and name another one of its faults."""
    return (
        # White space and empty parts: Envoy skips them, RFC 7515 allows none.
        ("invalid Base64url" in own and _has(" ", rules, request))
        or (own == _NOT_THREE and _has("..", rules, request))
        # Keys that have no `alg`: here the kind of key must fit the token's algorithm before it is tried.
        or (own == _NO_KEY and native == _TRIED)
        # Envoy asks once more for keys that it could not get, goes on through the tree of rules meanwhile, and reports
        # what ended last.
        or (_may_say_not_fetched(own, native, request) and any(rule.get("jwksUri") in BROKEN for rule in rules))
    )


def _may_say_not_fetched(own: str, native: str, request: Request) -> bool:
    """The answer to a HEAD does not show its words."""
    return _NOT_FETCHED in (own, native) or (request.method == "HEAD" and own == _NOT_SHOWN)


def _is_known_for_workload(
    native: Sequence[str], own: Sequence[str], rules: Sequence[Json], several: Sequence[Json]
) -> bool:
    """Where a header is written more than once, by several tokens or by one rule, its lines arrive joined here."""
    repeated = {name for rule in several for name in _written(rule)} | _written_twice(rules)
    return sorted(_apart(native, repeated)) == sorted(_apart(own, repeated))


def _apart(lines: Sequence[str], names: set[str]) -> Iterator[str]:
    """The lines, those of these names cut at each comma."""
    for line in lines:
        if _name(line) in names:
            name, _, value = line.partition(": ")
            yield from (canonical(f"{name}: {part}") for part in value.split(","))
        else:
            yield canonical(line)


def _name(line: str) -> str:
    return line.partition(":")[0].lower()


def _written_twice(rules: Sequence[Json]) -> set[str]:
    written = [name for rule in rules for name in _written(rule)]
    return {name for name in written if written.count(name) > 1}


def _written(rule: Json) -> list[str]:
    headers = [each["header"] for each in rule.get("outputClaimToHeaders", ())]
    return [name.lower() for name in (*headers, rule.get("outputPayloadToHeader", "")) if name]


def _tokens(rule: Json, request: Request) -> int:
    """How many tokens a rule may find."""
    return len(_lines(rule, request)) + _count(rule, request)


def _count(rule: Json, request: Request) -> int:
    default = not (rule.get("fromHeaders") or rule.get("fromParams") or rule.get("fromCookies"))
    names = ["access_token"] if default else rule.get("fromParams", [])
    cookies = [value for name, value in request.headers if name.lower() == "cookie"]
    found = set(_QUERY.findall(request.path)) & set(names)
    return len(found) + sum(len(set(_COOKIE.findall(value)) & set(rule.get("fromCookies", ()))) for value in cookies)


def _headers(rule: Json) -> Sequence[Mapping[str, str]]:
    default = not (rule.get("fromHeaders") or rule.get("fromParams") or rule.get("fromCookies"))
    return _BEARER if default else rule.get("fromHeaders", ())


def _lines(rule: Json, request: Request) -> list[str]:
    return [
        value
        for place in _headers(rule)
        for value in _values(place["name"].lower(), request)
        if place.get("prefix", "") in value
    ]


def _values(name: str, request: Request) -> list[str]:
    """The lines of a header; Envoy joins those of `authorization` before any filter sees them."""
    values = [value for each, value in request.headers if each.lower() == name]
    return [",".join(values)] if values and name == "authorization" else values


def _has(text: str, rules: Sequence[Json], request: Request) -> bool:
    return any(text in value for rule in rules for value in (*_lines(rule, request), *_other_places(request)))


def _other_places(request: Request) -> list[str]:
    cookies = [value for name, value in request.headers if name.lower() == "cookie"]
    return [request.path.replace("%20", " "), *cookies]
