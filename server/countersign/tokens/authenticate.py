"""A whole RequestAuthentication for one request: which token counts, or why the request is refused.

Istio turns the rules into one requirement tree for Envoy (pilot/pkg/security/authn, jwt_authn/verifier.cc): any of
the rules, or else for each of them that its token is missing. Here the tree is evaluated directly.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import Final

from countersign.core.decision import Mutations, PolicyRef, Reason
from countersign.core.facts import HttpRequest
from countersign.core.identity import VerifiedToken
from countersign.core.jwt_rule import FetchedKeys, InlineKeys, JwtRule, KeySource
from countersign.core.per_check import per_check
from countersign.core.posture import Posture
from countersign.tokens.cache import TokenCache
from countersign.tokens.forwarded import PATH
from countersign.tokens.jose import TokenError
from countersign.tokens.keys import KeySet
from countersign.tokens.locate import COOKIE, Located, header_locations, locate
from countersign.tokens.output import Written, accepted, anonymous
from countersign.tokens.proof import KEYS_MAY_COME, FinalError, Prover, Verifier
from countersign.tokens.verify import verify

MAX_TOKENS: Final = 4  # at the locations of one rule; each may cost eight signatures

_AUTHORIZATION: Final = "authorization"
_ORIGIN: Final = "origin"
_REQUEST_METHOD: Final = "access-control-request-method"
_UNAUTHORIZED: Final = 401
_FORBIDDEN: Final = 403
_SAYS_LITTLE: Final = frozenset({Reason.TOKEN_ISSUER, Reason.TOKEN_MISSING})


@per_check
class Authenticated:
    """The request may go on to the policies, if its tokens are its peer's (`bound`).

    ``token`` is the identity, None if the request carries none; ``also`` are the others that verified beside it, and
    ``rule`` is the one that took them. Until ``until`` (seconds since the epoch) the same request comes to the same
    with the same keys; 0 if it may not.
    """

    token: VerifiedToken | None
    mutations: Mutations
    also: tuple[VerifiedToken, ...] = ()
    rule: JwtRule | None = None
    until: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRefused:
    """The request ends here. ``text`` is for the client, in Envoy's words; ``policy`` is the rule that refused.

    ``detail`` is for the operator, where there is more to say than ``text``.
    """

    reason: Reason
    status: int
    text: str
    policy: PolicyRef
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysNeeded:
    """A refresh of these key sets may change the answer. ``refused`` is the answer where none may come."""

    sources: frozenset[FetchedKeys]
    refused: TokenRefused


@dataclass(frozen=True, slots=True)
class Failure:
    """A rule whose token does not count."""

    rule: JwtRule
    error: TokenError


def authenticate(  # noqa: PLR0913 (a request, what is known, when, and how)
    http: HttpRequest,
    rules: tuple[JwtRule, ...],
    keys: Mapping[KeySource, KeySet],
    now: float,
    posture: Posture,
    *,
    may_wait: bool,
    verifier: Verifier = verify,
    cache: TokenCache | None = None,
) -> Authenticated | TokenRefused | KeysNeeded:
    """Judge the request's tokens at ``now`` (seconds since the epoch) by rules that are sorted by issuer.

    1. a CORS preflight is not asked for a token;
    2. strict posture: one reading of the authorization header, or none;
    3. the first rule whose tokens all verify gives the identity, unless a token before it refuses the request itself;
    4. without one, a request that carries no token at any rule's locations is anonymous, unless a rule requires one;
    5. if a key may still come and there is time, say so; else refuse with the status that Envoy would report.
    """
    if is_preflight(http):
        return Authenticated(token=None, mutations=anonymous(rules), until=inf)
    if posture is Posture.STRICT:
        ambiguous = _ambiguity(http, rules)
        if ambiguous is not None:
            return refusal([ambiguous])
    prover = Prover(keys, now, posture, verifier=verifier, cache=cache)
    outcome = _by_rules(http, rules, prover)
    if isinstance(outcome, Authenticated):
        return outcome
    sources = _awaited(outcome) if may_wait else frozenset()
    refused = refusal(outcome)
    return KeysNeeded(sources=sources, refused=refused) if sources else refused


def _by_rules(http: HttpRequest, rules: tuple[JwtRule, ...], prover: Prover) -> Authenticated | list[Failure]:
    """The identity by the first rule that gives one, or every reason why none does."""
    failures: list[Failure] = []
    for rule in rules:
        located = locate(http, rule)
        if not located:
            if rule.required:
                failures.append(Failure(rule, TokenError(Reason.TOKEN_MISSING, "Jwt is missing")))
            continue
        try:
            verified, written = _by_rule(located, rule, prover)
        except FinalError as final:
            return [Failure(rule, final.error.bare())]
        except TokenError as error:
            failures.append(Failure(rule, error.bare()))
        else:
            return Authenticated(
                token=verified[-1],
                mutations=accepted(rules, rule, written),
                also=tuple(verified[:-1]),
                rule=rule,
                until=_until(verified, failures),
            )
    return failures or Authenticated(token=None, mutations=anonymous(rules), until=inf)


def _until(verified: list[VerifiedToken], failures: list[Failure]) -> float:
    """When the first of these tokens expires. A rule that failed for more than another issuer may take its own."""
    if failures and any(failure.error.reason not in _SAYS_LITTLE for failure in failures):
        return 0.0
    return min([inf if token.expires_at is None else token.expires_at for token in verified])


def _by_rule(
    located: tuple[Located, ...], rule: JwtRule, prover: Prover
) -> tuple[list[VerifiedToken], list[tuple[Located, Written]]]:
    """All tokens of one rule, and what they write; the last one is the identity. Raise `TokenError` or `FinalError`.

    All must verify, from the last to the first: else the workload might use one that did not. Final is: a good token
    beside a bad one (Envoy has then taken out the good one, and goes on without it); more tokens than are looked at;
    in strict posture, a token that only its strictness refuses.
    """
    verified: list[VerifiedToken] = []
    written: list[tuple[Located, Written]] = []
    try:
        for place in bounded(located):
            proof = prover.prove(place.token, rule)
            verified.append(proof.token)
            written.append((place, proof.headers))
    except TokenError as error:
        if written or error.reason is Reason.TOKEN_AMBIGUOUS:
            raise FinalError(error) from error
        raise
    return verified, written


def is_preflight(http: HttpRequest) -> bool:
    """Envoy's ``bypass_cors_preflight``, which Istio always sets: browsers send preflights without credentials."""
    headers = http.headers
    return http.method == "OPTIONS" and any(headers.values(_ORIGIN)) and any(headers.values(_REQUEST_METHOD))


def headers_read(rules: Iterable[JwtRule]) -> frozenset[str]:
    """The names of the headers at which `authenticate` and `forwarded` look."""
    names = {_AUTHORIZATION, _ORIGIN, _REQUEST_METHOD, PATH}
    for rule in rules:
        names.update(location.name for location in header_locations(rule))
        if rule.from_cookies:
            names.add(COOKIE)
    return frozenset(names)


def _ambiguity(http: HttpRequest, rules: tuple[JwtRule, ...]) -> Failure | None:
    """Two credentials where there may be one (RFC 9110 11.6.2): the workload may read the other one."""
    lines = http.headers.values(_AUTHORIZATION)
    if not lines or (len(lines) == 1 and not http.headers.joined):
        return None
    for rule in rules:
        for location in header_locations(rule):
            if location.name == _AUTHORIZATION and (
                len(lines) > 1 or ("," in lines[0] and lines[0].count(location.prefix) > 1)
            ):
                return Failure(rule, TokenError(Reason.TOKEN_AMBIGUOUS, "More than one authorization header"))
    return None


def bounded(located: tuple[Located, ...]) -> Iterator[Located]:
    """The tokens of one rule, in the order in which they must verify. Raise `TokenError` if they are too many."""
    if len(located) > MAX_TOKENS:
        raise TokenError(Reason.TOKEN_AMBIGUOUS, f"More than {MAX_TOKENS} Jwts")
    return reversed(located)


def _awaited(failures: list[Failure]) -> frozenset[FetchedKeys]:
    return frozenset(
        failure.rule.keys
        for failure in failures
        if failure.error.reason in KEYS_MAY_COME and not isinstance(failure.rule.keys, InlineKeys)
    )


def _reported(failures: list[Failure]) -> Failure:
    """The failure that Envoy's tree reports: the last child's, but one that says little only if there is nothing else.

    The last child asks each rule again whether its token is missing, and ends at the first that does not allow it.
    """
    last_child_first = (failures[0], *reversed(failures))
    telling = [each for each in last_child_first if each.error.reason not in _SAYS_LITTLE]
    of_a_token = [each for each in failures if each.error.reason is not Reason.TOKEN_MISSING]
    return (telling or of_a_token or failures)[0]


def refusal(failures: list[Failure]) -> TokenRefused:
    """What becomes of a request whose tokens all failed; there is at least one."""
    failure = _reported(failures)
    rule, error = failure.rule, failure.error
    return TokenRefused(
        reason=error.reason,
        status=_FORBIDDEN if error.reason is Reason.TOKEN_AUDIENCE else _UNAUTHORIZED,
        text=error.text,
        policy=PolicyRef(id=f"RequestAuthentication[{rule.policy}]", source=rule.source),
    )
