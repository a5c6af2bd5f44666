"""Mints the tokens that the scenario describes."""

from typing import Any

from countersign.mesh.issuer import Issuer
from countersign.mesh.scenario import AUDIENCE, Signature, Token


def mint(issuer: Issuer, token: Token, now: float) -> str:
    """The token as text, valid from now for its lifetime."""
    claims: dict[str, Any] = {"aud": AUDIENCE, "iat": int(now), "exp": int(now + token.lifetime), **token.claims}
    match token.signature:
        case Signature.GENUINE:
            return issuer.sign(claims, algorithm=token.algorithm)
        case Signature.FORGED:
            return issuer.forge(claims, algorithm=token.algorithm)
        case Signature.NONE:
            return issuer.unsigned(claims)
        case Signature.CONFUSED:
            return issuer.confuse(claims)
