"""Verified tokens against the connection they came over: asked at each request, whoever has verified the token before.

Source: RFC 8705 section 3 (401 ``invalid_token`` where the certificate is another).
"""

from collections.abc import Iterable, Iterator
from typing import Final

from countersign.core.binding import Binding, BindingError, hold_binding, hold_confirmation
from countersign.core.decision import PolicyRef
from countersign.core.identity import Peer, VerifiedToken
from countersign.core.jwt_rule import JwtRule
from countersign.core.posture import Posture
from countersign.tokens.authenticate import Authenticated, TokenRefused
from countersign.tokens.jose import TokenError
from countersign.tokens.verify import check_audience

_UNAUTHORIZED: Final = 401


def refuse_unbound(
    user: Authenticated, rules: tuple[JwtRule, ...], peer: Peer, posture: Posture
) -> TokenRefused | None:
    """Why a token of the request is not this peer's; None if every one of them may be.

    A token is held against the bindings of all rules that take tokens of its issuer and audience, not only of the
    first that took it: else an order of names would decide whether a stolen token passes.
    """
    if user.token is None:
        return None
    for token in (user.token, *user.also):
        try:
            hold_confirmation(token.claims, peer.certificate, posture)
        except BindingError as error:
            return _refused(error, user.rule or rules[0])
        for rule, binding in bindings(token, user.rule, rules):
            try:
                hold_binding(binding, token.claims, peer.id)
            except BindingError as error:
                return _refused(error, rule, binding.source)
    return None


def bindings(
    token: VerifiedToken, taken_by: JwtRule | None, rules: Iterable[JwtRule]
) -> Iterator[tuple[JwtRule, Binding]]:
    """What a token is held against: of the rule that took it, and of every other that could."""
    for rule in rules:
        if rule.bindings and (rule is taken_by or _takes(rule, token)):
            yield from ((rule, binding) for binding in rule.bindings)


def _takes(rule: JwtRule, token: VerifiedToken) -> bool:
    """Whether the rule is for tokens of this issuer and audience."""
    if rule.issuer not in ("", token.issuer):
        return False
    try:
        check_audience(token.claims, rule)
    except TokenError:
        return False
    return True


def _refused(error: BindingError, rule: JwtRule, source: str = "") -> TokenRefused:
    return TokenRefused(
        reason=error.reason,
        status=_UNAUTHORIZED,
        text=error.text,
        detail=str(error),
        policy=PolicyRef(id=f"RequestAuthentication[{rule.policy}]", source=source or rule.source),
    )
