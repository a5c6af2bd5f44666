"""What the pipeline comes to: a decision, what was found on the way, and what a client hears of a denial."""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from countersign.core.decision import Decision, Deny, PolicyRef, Reason
from countersign.core.facts import HttpRequest
from countersign.core.identity import VerifiedToken
from countersign.core.jwt_rule import FetchedKeys
from countersign.core.per_check import per_check
from countersign.core.spiffe import SpiffeId
from countersign.policy.spec import Evaluation
from countersign.policy.trace import RuleTrace
from countersign.policy.workload import Workload
from countersign.tokens.authenticate import TokenRefused

ACCESS_DENIED: Final = "RBAC: access denied"  # Envoy's RBAC filter says it so; log pipelines look for it
_BAD_REQUEST: Final = "request malformed"
_UNAVAILABLE: Final = "authorization unavailable"

# What the client gets. Everything else about a denial is for the operator.
_ANSWERS: Final[Mapping[Reason, tuple[int, str]]] = {
    Reason.REQUEST_MALFORMED: (400, _BAD_REQUEST),
    Reason.REQUEST_INCOMPLETE: (400, _BAD_REQUEST),
    Reason.WORKLOAD_UNKNOWN: (503, _UNAVAILABLE),
    Reason.NO_POLICIES: (503, _UNAVAILABLE),
    Reason.DEADLINE_PASSED: (503, _UNAVAILABLE),
    Reason.OVERLOADED: (503, _UNAVAILABLE),
    Reason.INTERNAL_ERROR: (503, _UNAVAILABLE),
    Reason.CALLER_NOT_ALLOWED: (503, _UNAVAILABLE),
    Reason.UNRECORDED: (503, _UNAVAILABLE),
}
_FORBIDDEN: Final = (403, ACCESS_DENIED)

_REALM_PATH: Final = 256  # Envoy's MaximumUriLength, jwt_authn/filter.cc
_VISIBLE: Final = re.compile(r"[\x21-\x7e]*")


class Step(StrEnum):
    """The steps of the pipeline, as people call them."""

    REQUEST = "request"
    WORKLOAD = "workload"
    PEER = "peer (PeerAuthentication)"
    CUSTOM = "custom (AuthorizationPolicy CUSTOM)"
    TOKEN = "token (RequestAuthentication)"  # noqa: S105
    POLICIES = "policies (AuthorizationPolicy)"


@per_check
class Judgement:
    """A decision, the step that made it, and what the steps until then found.

    ``custom`` are the CUSTOM rules that were asked, if the judgement is by the definition. ``token`` is also one that
    had verified and was refused for being another workload's. A refresh of the key sets that it ``awaits`` may change
    the decision. Until ``until`` (seconds since the epoch) the same facts give the same decision with the same
    snapshot; 0 if they may not.
    """

    step: Step
    decision: Decision
    workload: Workload | None = None
    peer: SpiffeId | None = None
    custom: tuple[RuleTrace, ...] = ()
    token: VerifiedToken | None = None
    evaluation: Evaluation | None = None
    awaits: frozenset[FetchedKeys] = frozenset()
    until: float = 0.0


def deny(reason: Reason, detail: str = "", policy: PolicyRef | None = None, generation: int = 0) -> Deny:
    """A denial with the answer that its reason gives to a client."""
    status, body = _ANSWERS.get(reason, _FORBIDDEN)
    return Deny(reason=reason, status=status, body=body, policy=policy, detail=detail, generation=generation)


def unauthenticated(http: HttpRequest | None, refused: TokenRefused, generation: int) -> Deny:
    """Envoy's answer to a bad token: its text, and where to authenticate (jwt_authn/filter.cc, RFC 6750 3).

    Without the query, which Envoy repeats: a token may be in it, and answers are logged by whoever stands between.
    """
    realm = f"{http.scheme}://{http.host}{http.path.partition('?')[0][:_REALM_PATH]}" if http else ""
    error = "" if refused.reason is Reason.TOKEN_MISSING else ', error="invalid_token"'
    challenge = f'Bearer realm="{realm}"{error}'
    return Deny(
        reason=refused.reason,
        status=refused.status,
        body=refused.text,
        headers=(("www-authenticate", challenge),) if _VISIBLE.fullmatch(realm) else (),
        policy=refused.policy,
        detail=refused.detail or refused.text,
        generation=generation,
    )
