"""Tokens that count only in the hands of the workload they were made for.

Two ways of saying whose a token is: its issuer's (``cnf``, the hash of a certificate) and its operator's (a claim
that must name the peer). Either way a token that has been stolen does not work over another connection.
Source: RFC 8705 section 3.1 (``x5t#S256``); RFC 7800 section 3.1 (``cnf``); SPIFFE-ID.md; docs/peers.md.
"""

import base64
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, assert_never

from countersign.core.claims import claim_at
from countersign.core.decision import Reason
from countersign.core.posture import Posture
from countersign.core.spiffe import SpiffeId

CONFIRMATION: Final = "cnf"
THUMBPRINT: Final = "x5t#S256"
_THUMBPRINT: Final = re.compile(r"[A-Za-z0-9_-]{43}")  # 32 octets


class PeerPart(StrEnum):
    """What of a peer's SPIFFE ID a claim is held against, as it is written after ``peer.``."""

    ID = "id"  # spiffe://cluster.local/ns/apps/sa/sleep
    TRUST_DOMAIN = "trust_domain"  # cluster.local
    NAMESPACE = "namespace"  # apps
    SERVICE_ACCOUNT = "service_account"  # sleep

    def of(self, peer: SpiffeId) -> str | None:
        """The part of a peer; None for namespace and service account of an ID of another form."""
        match self:
            case PeerPart.ID:
                return str(peer)
            case PeerPart.TRUST_DOMAIN:
                return peer.trust_domain
            case PeerPart.NAMESPACE:
                return peer.namespace
            case PeerPart.SERVICE_ACCOUNT:
                return peer.service_account
            case _:
                assert_never(self)


@dataclass(frozen=True, slots=True)
class Binding:
    """``claim == peer.part``. ``claim`` is a path of names, ``text`` the comparison as written, ``source`` its line."""

    claim: tuple[str, ...]
    part: PeerPart
    text: str
    source: str


class BindingError(ValueError):
    """The token is not this connection's. ``text`` is for the client, the message for the operator."""

    def __init__(self, reason: Reason, text: str, detail: str = "") -> None:
        super().__init__(f"{text}: {detail}" if detail else text)
        self.reason = reason
        self.text = text


def hold_confirmation(claims: Mapping[str, Any], certificate: bytes | None, posture: Posture) -> None:
    """Hold ``cnf`` against the proven SHA-256 of the peer's certificate. Raise `BindingError`.

    A key that can only be proven in other ways (``jkt`` of DPoP ...) is not proven here: strict refuses such a token,
    and the istio posture leaves it, as Envoy does, to whoever asks for that proof.
    """
    if CONFIRMATION not in claims:
        return
    confirmation = claims[CONFIRMATION]
    if not isinstance(confirmation, Mapping) or not confirmation:
        raise _malformed("it is no object with members")
    if THUMBPRINT in confirmation:
        _hold_thumbprint(_thumbprint(confirmation[THUMBPRINT]), certificate)
    elif posture is Posture.STRICT:
        raise BindingError(
            Reason.TOKEN_CONFIRMATION_UNSUPPORTED, "Jwt confirmation [cnf] is not supported", f"no `{THUMBPRINT}` in it"
        )


def _malformed(why: str) -> BindingError:
    return BindingError(Reason.TOKEN_CONFIRMATION_MALFORMED, "Jwt confirmation [cnf] is malformed", why)


def _thumbprint(value: object) -> bytes:
    """The 32 octets of a thumbprint: base64url without padding (RFC 7515 2).

    The last character has two bits that no octet has; RFC 8705's own example sets one of them, so they are not asked.
    """
    if not isinstance(value, str) or _THUMBPRINT.fullmatch(value) is None:
        raise _malformed(f"`{THUMBPRINT}` is not the base64url of a SHA-256")
    return base64.urlsafe_b64decode(f"{value}=")


def _hold_thumbprint(wanted: bytes, certificate: bytes | None) -> None:
    if certificate is None:
        raise BindingError(
            Reason.TOKEN_WITHOUT_CERTIFICATE,
            "Jwt is bound to a certificate",
            "no proven hash of the peer's certificate is known (docs/peers.md says which settings give one)",
        )
    if not hmac.compare_digest(wanted, certificate):
        raise BindingError(Reason.TOKEN_OTHER_CERTIFICATE, "Jwt is bound to another certificate")


def hold_binding(binding: Binding, claims: Mapping[str, Any], peer: SpiffeId | None) -> None:
    """Hold a claim against the peer. Raise `BindingError`.

    A claim that is a list names everybody in it, as in policies: one element must be the peer's. Strings are compared
    as they are, and nothing else is a name.
    """
    part = None if peer is None else binding.part.of(peer)
    if part is None:
        detail = "the peer is unknown" if peer is None else f"the peer's ID has no {binding.part}"
        raise BindingError(Reason.TOKEN_WITHOUT_PEER, "Jwt is bound to a workload", f"`{binding.text}`: {detail}")
    named = names_in(claim_at(claims, binding.claim))
    if not named:
        detail = f"`{binding.text}`: the claim is not there, or is no string"
        raise BindingError(Reason.TOKEN_NAMES_NO_PEER, "Jwt does not say which workload it is for", detail)
    if part not in named:
        detail = f"`{binding.text}` does not hold"
        raise BindingError(Reason.TOKEN_OTHER_PEER, "Jwt is bound to another workload", detail)


def names_in(claim: object) -> tuple[str, ...]:
    """The names that a claim says: its string, or the strings of its list."""
    if isinstance(claim, str):
        return (claim,)
    items = claim if isinstance(claim, list | tuple) else ()
    return tuple(item for item in items if isinstance(item, str))
