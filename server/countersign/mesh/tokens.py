"""Mints the tokens that the scenario describes."""

from pathlib import Path
from typing import Any

from countersign.mesh.certificates import thumbprint
from countersign.mesh.issuer import Issuer
from countersign.mesh.process import MeshError
from countersign.mesh.scenario import AUDIENCE, Signature, Token


def mint(issuer: Issuer, token: Token, now: float, certificates: Path | None = None) -> str:
    """The token as text, valid from now for its lifetime.

    ``certificates`` is the directory of the mesh's certificates. Raise `MeshError` if the token needs and lacks it.
    """
    claims: dict[str, Any] = {"aud": AUDIENCE, "iat": int(now), "exp": int(now + token.lifetime), **token.claims}
    if token.confirms:
        if certificates is None:
            raise MeshError(f"{token.label}: bound to a certificate, and there is none")
        claims["cnf"] = {"x5t#S256": thumbprint(certificates / token.confirms / "tls.crt")}
    match token.signature:
        case Signature.GENUINE:
            return issuer.sign(claims, algorithm=token.algorithm)
        case Signature.FORGED:
            return issuer.forge(claims, algorithm=token.algorithm)
        case Signature.NONE:
            return issuer.unsigned(claims)
        case Signature.CONFUSED:
            return issuer.confuse(claims)
