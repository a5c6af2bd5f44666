"""Claims taken as they are given: NO SIGNATURE IS CHECKED HERE. Only `countersign explain` may use this module.

Beside `verify` the one place that makes a `VerifiedToken`, and what it makes was never verified: it answers "what
would the policies say, were this token real?". An import contract keeps it away from everything that serves.
Issuer, audience and times are still checked, so that the answer is the one that a real token would get.
"""

import base64
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from countersign.core.facts import HttpRequest
from countersign.core.identity import VerifiedToken
from countersign.core.jwt_rule import JwtRule, KeySource, RemoteKeys
from countersign.core.posture import Posture
from countersign.tokens.authenticate import Authenticated, Failure, TokenRefused, bounded, is_preflight, refusal
from countersign.tokens.jose import TokenError, UnverifiedToken, parse
from countersign.tokens.keys import KeySet
from countersign.tokens.locate import InCookie, InHeader, InParameter, Located, header_locations, locate
from countersign.tokens.output import accepted, anonymous
from countersign.tokens.verify import check_claims, split_claims, verify

_HEADER: Final = b'{"alg":"RS256"}'
_NO_SIGNATURE: Final = "AA"  # one octet


def parse_claims(text: str) -> UnverifiedToken:
    """Read a claims set as strictly as in a token. Raise `TokenError`."""
    payload = text.encode("utf-8", "surrogateescape")
    return parse(f"{_segment(_HEADER)}.{_segment(payload)}.{_NO_SIGNATURE}")


def _segment(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def assume_claims(
    token: UnverifiedToken, http: HttpRequest, rules: tuple[JwtRule, ...], now: float, posture: Posture
) -> Authenticated | TokenRefused:
    """As if the request carried this token where the first rule that takes it looks, with a good signature.

    Whoever writes claims by hand leaves out ``exp``: only here, it need not be there.
    """
    if not rules or is_preflight(http):  # then no token is looked at
        return Authenticated(token=None, mutations=anonymous(rules))
    lifetime = posture if "exp" in token.payload else Posture.ISTIO
    failures = []
    for rule in rules:
        try:
            check_claims(token, rule, now, lifetime)
        except TokenError as error:
            failures.append(Failure(rule, error))
        else:
            return Authenticated(token=_assumed(token, rule), mutations=accepted(rules, rule, [(_place(rule), token)]))
    return refusal(failures)


def assume_signatures(
    http: HttpRequest,
    rules: tuple[JwtRule, ...],
    keys: Mapping[KeySource, KeySet],
    now: float,
    posture: Posture,
) -> Authenticated | TokenRefused:
    """As `authenticate` would, had every key set that is not there verified the signatures.

    For a request that `authenticate` has already answered with `KeysNeeded`.
    """
    failures = []
    for rule in rules:
        tokens: list[tuple[Located, UnverifiedToken]] = []
        try:
            for place in bounded(locate(http, rule)):
                token = parse(place.token)
                _check(token, rule, keys.get(rule.keys), now, posture)
                tokens.append((place, token))
        except TokenError as error:
            failures.append(Failure(rule, error))
        else:
            if tokens:
                return Authenticated(token=_assumed(tokens[-1][1], rule), mutations=accepted(rules, rule, tokens))
    return refusal(failures) if failures else Authenticated(token=None, mutations=anonymous(rules))


def _check(token: UnverifiedToken, rule: JwtRule, keys: KeySet | None, now: float, posture: Posture) -> None:
    if keys is None and isinstance(rule.keys, RemoteKeys):
        check_claims(token, rule, now, posture)
    else:
        verify(token, rule, keys, now, posture)


def _assumed(token: UnverifiedToken, rule: JwtRule) -> VerifiedToken:
    return VerifiedToken(
        claims=MappingProxyType(split_claims(token.payload, rule.space_delimited_claims)),
        issuer=token.payload.get("iss", ""),
        subject=token.payload.get("sub"),
        expires_at=None,  # nothing keeps this token
    )


def _place(rule: JwtRule) -> Located:
    """Where the rule looks first."""
    for header in header_locations(rule):
        return Located("", InHeader(header.name))
    for name in rule.from_params:
        return Located("", InParameter(name))
    return Located("", InCookie(next(iter(rule.from_cookies))))
