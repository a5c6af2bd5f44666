"""Each member of a JWKS as people look at it: what it is, whether it may verify, and why not."""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from countersign.tokens.jose import Base64Error, decode_base64url
from countersign.tokens.keys import KeySet, RejectedKey, members_of

_REQUIRED: Final[Mapping[str, tuple[str, ...]]] = {  # RFC 7638 3.2, RFC 8037 2; never a member of a private key
    "RSA": ("e", "kty", "n"),
    "EC": ("crv", "kty", "x", "y"),
    "OKP": ("crv", "kty", "x"),
}
_MAX_TEXT: Final = 256  # characters of what an issuer wrote


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectedKey:
    """``size`` is the curve or the bits of the modulus; ``thumbprint`` RFC 7638, SHA-256, base64url.

    A text is empty if the member does not say it. ``why_not`` is empty if the key is usable; ``algorithms`` are those
    it may then verify.
    """

    index: int
    kid: str
    kty: str
    size: str
    alg: str
    use: str
    thumbprint: str
    algorithms: tuple[str, ...]
    why_not: str


def inspect(text: str) -> tuple[InspectedKey, ...]:
    """Every member of a JWKS, in its order. Raise `KeySetError` if the text is none."""
    keys = KeySet.parse(text)
    rejected: dict[int, RejectedKey] = {each.index: each for each in keys.rejected}
    usable = iter(keys.keys)
    found = []
    for index, member in enumerate(members_of(text)):
        jwk = member if isinstance(member, dict) else {}
        refusal = rejected.get(index)
        found.append(
            InspectedKey(
                index=index,
                kid=_text(jwk, "kid"),
                kty=_text(jwk, "kty"),
                size=_text(jwk, "crv") or _bits(jwk),
                alg=_text(jwk, "alg"),
                use=_text(jwk, "use"),
                thumbprint=_thumbprint(jwk),
                algorithms=() if refusal else tuple(sorted(next(usable).algorithms)),
                why_not=refusal.why if refusal else "",
            )
        )
    return tuple(found)


def _text(jwk: Mapping[str, Any], name: str) -> str:
    value = jwk.get(name, "")
    return value[:_MAX_TEXT] if isinstance(value, str) else ""


def _bits(jwk: Mapping[str, Any]) -> str:
    try:
        return f"{int.from_bytes(decode_base64url(_whole(jwk, 'n'))).bit_length()} bits" if "n" in jwk else ""
    except Base64Error:
        return ""


def _whole(jwk: Mapping[str, Any], name: str) -> str:
    value = jwk.get(name)
    return value if isinstance(value, str) else ""


def _thumbprint(jwk: Mapping[str, Any]) -> str:
    names = _REQUIRED.get(_text(jwk, "kty"), ())
    if not names or not all(_whole(jwk, name) for name in names):
        return ""
    text = json.dumps({name: jwk[name] for name in names}, separators=(",", ":"))
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
