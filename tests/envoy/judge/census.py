"""What of RequestAuthentication a trial has met: each feature is counted where it mattered, not where it stood.

A feature counts where a request reached the rules that have it: its token was looked at, its header was written.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final

from tests.envoy.judge.arena import Verdict
from tests.envoy.judge.cases import Case
from tests.envoy.judge.client import Request
from tests.envoy.judge.jwt_authn import rules_of
from tests.envoy.judge.matchers import Json
from tests.envoy.judge.policy_set import PolicySet

_TEXTS: Final = ("Jw", "Audiences in Jwt")
_ANONYMOUS: Final = "no token"
_NUMBER: Final = re.compile(r"-?[0-9]+(\.[0-9]{6})?")
_ENCODED: Final = re.compile(r"[A-Za-z0-9+/]{2,}={0,2}")


def features(policies: PolicySet, case: Case, native: Verdict) -> Iterator[str]:
    """The features that one judged request has tried; ``native`` is Envoy's own answer."""
    documents = policies.applying("RequestAuthentication")
    rules = rules_of(documents)
    if not rules:
        return
    request = case.request
    places = [place for rule in rules for place in _places(rule, request)]
    yield "policies: several" if len(documents) > 1 else "policies: one"
    yield f"rules: {min(len(rules), 3)}"
    yield from sorted(set(places)) or [_ANONYMOUS]
    if len(places) > 1:
        yield "tokens: several"
    if any(sum(1 for _ in _places(rule, request)) > 1 for rule in rules):
        yield "tokens: several of one rule"
    lines = [name.lower() for name, _ in request.headers]
    forged = {name for rule in rules for name in _written(rule)} & set(lines)
    if forged and not places:
        yield "output header forged by somebody without a token"
    elif forged:
        yield "output header forged by somebody with a token"
    yield from _special(rules, request, native, forged=bool(forged))
    if native.received is not None and places:
        yield from _passed(rules, native.received)


def _special(rules: Sequence[Json], request: Request, native: Verdict, *, forged: bool) -> Iterator[str]:
    named = {name: value or "" for name, value in native.headers}
    lines = {name.lower(): value for name, value in request.headers}
    if request.method == "OPTIONS" and lines.get("origin") and lines.get("access-control-request-method"):
        yield "preflight"
        if forged:
            yield "preflight with a forged output header"
    if lines.get("content-type", "").startswith("application/grpc") and named.get("grpc-message", "").startswith(
        _TEXTS
    ):
        yield f"gRPC caller refused for a token, grpc-status {named['grpc-status']}"
    required = any(rule.get("presence") == "REQUIRED" for rule in rules)
    if required:
        yield "presence: missing" if native.body == "Jwt is missing" else "presence: REQUIRED"
    if native.body.startswith(_TEXTS) or named.get("www-authenticate"):
        yield "refused for a token"


def _passed(rules: Sequence[Json], received: Sequence[str]) -> Iterator[str]:
    """Of a request with a token that the workload got."""
    lines = {(pair := line.partition(": "))[0].lower(): pair[2] for line in received[1:]}
    yield "let through with a token"
    written = [name for rule in rules for name in _written(rule)]
    for rule in rules:
        if "forwardOriginalToken" in rule:
            yield f"forwardOriginalToken: {rule['forwardOriginalToken']}"
        if rule.get("spaceDelimitedClaims"):
            yield "spaceDelimitedClaims"
        if rule.get("outputPayloadToHeader", "").lower() in lines:
            yield "outputPayloadToHeader"
        for output in rule.get("outputClaimToHeaders", ()):
            name = output["header"].lower()
            if name in lines and written.count(name) == 1:
                yield f"outputClaimToHeaders: {output['claim']}, {_kind(lines[name])}"


def _kind(value: str) -> str:
    if value in ("true", "false"):
        return "boolean"
    if _NUMBER.fullmatch(value):
        return "number"
    return "list or object" if len(value) % 4 == 0 and _ENCODED.fullmatch(value) and value[:1] in "We" else "string"


def _places(rule: Json, request: Request) -> Iterator[str]:
    """Where the rule finds tokens."""
    own = rule.get("fromHeaders") or rule.get("fromParams") or rule.get("fromCookies")
    headers = rule.get("fromHeaders", ()) if own else ({"name": "authorization", "prefix": "Bearer "},)
    for place in headers:
        lines = [value for name, value in request.headers if name.lower() == place["name"].lower()]
        found = [value for value in lines if place.get("prefix", "") in value]
        kind = ("prefix" if place.get("prefix") else "no prefix") if own else "default"
        yield from (f"header: {kind}" for _ in found)
        if len(found) > 1:
            yield "header: several lines of one name"
    for name in rule.get("fromParams", ()) if own else ("access_token",):
        if re.search(rf"[?&]{name}=", request.path):
            yield f"param: {'own' if own else 'default'}"
    cookies = [value for name, value in request.headers if name.lower() == "cookie"]
    for name in rule.get("fromCookies", ()):
        if any(re.search(rf"(^|; *){name}=", value) for value in cookies):
            yield "cookie"


def _written(rule: Json) -> list[str]:
    headers = [each["header"] for each in rule.get("outputClaimToHeaders", ())]
    return [name.lower() for name in (*headers, rule.get("outputPayloadToHeader", "")) if name]
