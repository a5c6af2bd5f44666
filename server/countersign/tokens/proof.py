"""One token of a request against one rule: what is known of it, or else the whole verification."""

from collections.abc import Callable, Mapping
from typing import Final

from countersign.core.decision import Reason
from countersign.core.identity import VerifiedToken
from countersign.core.jwt_rule import JwtRule, KeySource
from countersign.core.posture import Posture
from countersign.tokens.cache import Proof, TokenCache, digest
from countersign.tokens.jose import TokenError, UnverifiedToken, parse
from countersign.tokens.keys import KeySet
from countersign.tokens.output import output_headers
from countersign.tokens.verify import check_issuer, verify

KEYS_MAY_COME: Final = frozenset({Reason.KEYS_UNAVAILABLE, Reason.KEYS_STALE, Reason.TOKEN_UNKNOWN_KEY})

# Why strict posture may refuse what Envoy takes; for every other reason Envoy refuses too.
_STRICTNESS: Final = frozenset(
    {Reason.TOKEN_MALFORMED, Reason.TOKEN_TYPE, Reason.TOKEN_NO_EXPIRY, Reason.TOKEN_NOT_YET_VALID}
)

# One token against one rule: `verify`, or what `assume` puts in its place.
Verifier = Callable[[UnverifiedToken, JwtRule, KeySet | None, float, Posture], VerifiedToken]


class FinalError(Exception):
    """The request is refused for this token: no other rule may take it, or it would pass by another identity."""

    def __init__(self, error: TokenError) -> None:
        super().__init__(str(error))
        self.error = error


class Prover:
    """Proves the tokens of one request, at one moment. A cache only holds what `verify` says."""

    __slots__ = ("_cache", "_keys", "_now", "_parsed", "_posture", "_verifier")

    def __init__(
        self,
        keys: Mapping[KeySource, KeySet],
        now: float,
        posture: Posture,
        *,
        verifier: Verifier = verify,
        cache: TokenCache | None = None,
    ) -> None:
        self._keys = keys
        self._now = now
        self._posture = posture
        self._verifier = verifier
        self._cache = cache if verifier is verify else None
        self._parsed: dict[str, UnverifiedToken | TokenError] = {}  # rules mostly share their locations: parse once

    def prove(self, text: str, rule: JwtRule) -> Proof:
        """The proof of a token by a rule. Raise `TokenError`, or `FinalError` in strict posture.

        Final is a token that only strictness refuses: it is what Envoy would know the request by.
        """
        cache, keys = self._cache, self._keys.get(rule.keys)
        if cache is None or keys is None or keys.expired:
            return self._verified(self._parse(text), rule, keys)
        name = digest(text)
        known = cache.find(name)
        if known is not None:
            check_issuer(known.issuer, rule)
            proof = known.proof(rule, keys, self._now, self._posture)
            if proof is not None:
                cache.hits += 1
                return proof
        cache.misses += 1
        token = self._parse(text)
        proof = self._verified(token, rule, keys)
        cache.keep(name, proof, token, rule, keys, self._posture)
        return proof

    def _parse(self, text: str) -> UnverifiedToken:
        outcome = self._parsed.get(text)
        if outcome is None:
            try:
                outcome = parse(text) if self._cache is None else parse(text, self._cache.heads)
            except TokenError as error:
                outcome = error.bare()
            self._parsed[text] = outcome
        if isinstance(outcome, TokenError):
            raise outcome.bare()
        return outcome

    def _verified(self, token: UnverifiedToken, rule: JwtRule, keys: KeySet | None) -> Proof:
        try:
            verified = self._verifier(token, rule, keys, self._now, self._posture)
        except TokenError as error:
            strict = self._posture is Posture.STRICT and error.reason in _STRICTNESS
            if strict and self._may_be_good_for_envoy(token, rule, keys):
                raise FinalError(error) from error
            raise
        return Proof(verified, output_headers(rule, token))

    def _may_be_good_for_envoy(self, token: UnverifiedToken, rule: JwtRule, keys: KeySet | None) -> bool:
        try:
            self._verifier(token, rule, keys, self._now, Posture.ISTIO)
        except TokenError as error:
            return (keys is None or keys.expired) and error.reason in KEYS_MAY_COME
        return True
