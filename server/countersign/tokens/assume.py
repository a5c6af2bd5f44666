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
from countersign.tokens.authenticate import (
    Authenticated,
    Failure,
    KeysNeeded,
    TokenRefused,
    authenticate,
    is_preflight,
    refusal,
)
from countersign.tokens.jose import TokenError, UnverifiedToken, parse
from countersign.tokens.keys import KeySet
from countersign.tokens.locate import InCookie, InHeader, InParameter, Located, header_locations
from countersign.tokens.output import accepted, anonymous, output_headers
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
            mutations = accepted(rules, rule, [(_place(rule), output_headers(rule, token))])
            return Authenticated(token=_assumed(token, rule), mutations=mutations, rule=rule)
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
    outcome = authenticate(http, rules, keys, now, posture, may_wait=False, verifier=_assume)
    if isinstance(outcome, KeysNeeded):
        raise AssertionError("asked to wait where waiting was not offered")  # noqa: TRY004 (nobody passed it)
    return outcome


def _assume(token: UnverifiedToken, rule: JwtRule, keys: KeySet | None, now: float, posture: Posture) -> VerifiedToken:
    if keys is not None or not isinstance(rule.keys, RemoteKeys):
        return verify(token, rule, keys, now, posture)
    check_claims(token, rule, now, posture)
    return _assumed(token, rule)


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
