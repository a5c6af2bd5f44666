"""One token against one rule: the only place where a token is verified (`assume` makes others up, for `explain`).

The order is Envoy's (jwt_authn/authenticator.cc), because it decides which status a client sees:

1. parse (`jose.parse`, by the caller);
2. ``iss`` is the rule's;
3. strict posture: nothing dangerous in the header (RFC 8725);
4. ``nbf`` and ``exp`` against the clock, and in strict posture a finite ``exp`` and no ``iat`` in the future;
5. ``aud`` has one of the rule's;
6. there are keys;
7. one of at most eight eligible keys verifies the signature.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import Algorithm, get_default_algorithms

from countersign.core.decision import Reason
from countersign.core.identity import VerifiedToken
from countersign.core.jwt_rule import InlineKeys, JwtRule
from countersign.core.posture import Posture
from countersign.tokens.jose import ALGORITHMS, TokenError, UnverifiedToken
from countersign.tokens.keys import Key, KeySet

LEEWAY: Final = 60  # seconds; jwt_verify_lib's kClockSkewInSecond
_YEAR_10000: Final = 253402300800  # seconds since the epoch; a token that outlives the calendar never expires

# RFC 7519 5.1, RFC 9068 2.1, RFC 7515 4.1.9. Any other type is another kind of token (RFC 8725 3.11).
_TYPES: Final = frozenset({"jwt", "at+jwt", "jose"})
# Names that most tokens have: thousands of remembered tokens share one text of each.
_NAMES: Final[Mapping[str, str]] = {
    name: name
    for name in (
        *("iss", "sub", "aud", "exp", "nbf", "iat", "jti"),  # RFC 7519 4.1
        *("auth_time", "nonce", "acr", "amr", "azp", "sid"),  # OpenID Connect Core 2
        *("name", "given_name", "family_name", "preferred_username", "email", "email_verified", "updated_at", "locale"),
        *("scope", "scp", "client_id", "roles", "groups", "entitlements", "cnf", "act"),  # RFC 9068, 7800, 8693
        *("typ", "tid", "oid", "ver", "permission", "permissions", "session_state", "realm_access", "resource_access"),
    )
}
_SIGNATURES: Final[Mapping[str, Algorithm]] = {
    name: algorithm for name, algorithm in get_default_algorithms().items() if name in ALGORITHMS
}


def verify(token: UnverifiedToken, rule: JwtRule, keys: KeySet | None, now: float, posture: Posture) -> VerifiedToken:
    """Verify for the rule at ``now``, in seconds since the epoch. Raise `TokenError`.

    ``keys`` is None if the rule's keys are not there.
    """
    check_claims(token, rule, now, posture)
    key = _verifying_key(token, rule, keys)
    expires = int(token.payload.get("exp", 0))
    claims = split_claims(token.payload, rule.space_delimited_claims)
    if claims.get("iss") == rule.issuer:
        claims["iss"] = rule.issuer  # the same text, and one object for all that are remembered
    return VerifiedToken(
        claims=MappingProxyType(dict(claims)),  # a copy is smaller than a dict that has grown, and this one is kept
        issuer=rule.issuer or token.payload.get("iss", ""),
        subject=token.payload.get("sub"),
        expires_at=float(expires) if expires else None,
        key=key.thumbprint,
    )


def check_claims(token: UnverifiedToken, rule: JwtRule, now: float, posture: Posture) -> None:
    """Steps 2 to 5: what a token says, and not whether it is true. Raise `TokenError`."""
    seconds = int(now)  # Envoy's clock has whole seconds
    check_issuer(token.payload.get("iss", ""), rule)
    if posture is Posture.STRICT:
        _check_header(token.head.members)
    _check_times(token.payload, seconds)
    if posture is Posture.STRICT:
        _check_lifetime(token.payload, seconds)
    check_audience(token.payload, rule)


def check_issuer(issuer: str, rule: JwtRule) -> None:
    """Step 2. Raise `TokenError`."""
    # An empty issuer means any; Istio allows it with a jwksUri only.
    if rule.issuer and issuer != rule.issuer:
        raise TokenError(Reason.TOKEN_ISSUER, "Jwt issuer is not configured")


def _check_header(header: Mapping[str, Any]) -> None:
    if "crit" in header or "b64" in header:  # RFC 7515 4.1.11: we understand no extension; RFC 7797: nor this one
        raise TokenError(Reason.TOKEN_MALFORMED, "Jwt header has an extension that is not supported")
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower().removeprefix("application/") not in _TYPES:
        raise TokenError(Reason.TOKEN_TYPE, "Jwt header [typ] is not supported")
    if "zip" in header or "enc" in header or "cty" in header:  # members of a JWE, or of a token inside a token
        raise TokenError(Reason.TOKEN_TYPE, "Jwt is encrypted, compressed or nested")


def _check_times(payload: Mapping[str, Any], now: int) -> None:
    if now + LEEWAY < int(payload.get("nbf", 0)):
        raise TokenError(Reason.TOKEN_NOT_YET_VALID, "Jwt not yet valid")
    expires = int(payload.get("exp", 0))
    if expires and now > expires + LEEWAY:  # Envoy: 0 is absent
        raise TokenError(Reason.TOKEN_EXPIRED, "Jwt is expired")


def _check_lifetime(payload: Mapping[str, Any], now: int) -> None:
    if not 0 < int(payload.get("exp", 0)) < _YEAR_10000:
        raise TokenError(Reason.TOKEN_NO_EXPIRY, "Jwt never expires")
    if now + LEEWAY < int(payload.get("iat", 0)):
        raise TokenError(Reason.TOKEN_NOT_YET_VALID, "Jwt is issued in the future")


def check_audience(payload: Mapping[str, Any], rule: JwtRule) -> None:
    """Step 5. Raise `TokenError`."""
    if not rule.audiences:
        return
    audience = payload.get("aud", ())
    said = (audience,) if isinstance(audience, str) else audience
    if any(entry in rule.audiences for entry in said):  # mostly they are spelt alike
        return
    wanted = {_fold(entry) for entry in rule.audiences}
    if not any(_fold(entry) in wanted for entry in said):
        raise TokenError(Reason.TOKEN_AUDIENCE, "Audiences in Jwt are not allowed")


def _fold(audience: str) -> str:
    """Without the scheme and one trailing slash (jwt_verify_lib, check_audience.cc)."""
    for scheme in ("https://", "http://"):
        if audience.startswith(scheme):
            audience = audience.removeprefix(scheme)
            break
    return audience.removesuffix("/")


def _verifying_key(token: UnverifiedToken, rule: JwtRule, keys: KeySet | None) -> Key:
    if keys is not None and keys.expired:
        raise TokenError(Reason.KEYS_STALE, "Jwks remote fetch is failed")
    if keys is None and not isinstance(rule.keys, InlineKeys):
        raise TokenError(Reason.KEYS_UNAVAILABLE, "Jwks remote fetch is failed")
    if keys is None or not keys.keys:
        raise TokenError(Reason.KEYS_UNAVAILABLE, "Jwks doesn't have any valid public key")
    candidates = keys.eligible(token.head.algorithm, token.head.kid)
    if not candidates:
        raise TokenError(Reason.TOKEN_UNKNOWN_KEY, "Jwks doesn't have key to match kid or alg from Jwt")
    # INVARIANT: every candidate may verify this very algorithm, so the header alone never chooses how a key is used.
    algorithm = _SIGNATURES[token.head.algorithm]
    for key in candidates:
        if _is_whole(token.signature, key) and algorithm.verify(token.signing_input, key.public, token.signature):
            return key
    raise TokenError(Reason.TOKEN_SIGNATURE, "Jwt verification fails")


def _is_whole(signature: bytes, key: Key) -> bool:
    """RFC 8017 8.1.2, step 1: as long as the modulus. OpenSSL takes one of PSS without its leading zeros too."""
    public = key.public
    return not isinstance(public, RSAPublicKey) or len(signature) == (public.key_size + 7) // 8


def split_claims(payload: Mapping[str, Any], space_delimited: frozenset[str]) -> dict[str, Any]:
    """What policies see (Istio: ``spaceDelimitedClaims``): the string is gone, its words are a list."""
    claims = {_NAMES.get(name, name): value for name, value in payload.items()}
    for name in space_delimited:
        value = claims.get(name)
        if isinstance(value, str):
            claims[name] = [word for word in value.split(" ") if word]
    return claims
