"""What the demo asks the mesh, and what must come of it: data, one `Step` a row of the table."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from countersign.core.decision import AllowReason, Reason

ISSUER: Final = "https://issuer.example"
WORKLOADS_ISSUER: Final = "https://workloads.example"
AUDIENCE: Final = "httpbin"
HOUR: Final = 3600.0


class Caller(StrEnum):
    """Who asks, and by which way."""

    SLEEP = "sleep"  # through its own sidecar
    BATCH = "batch"  # mTLS with its own certificate, straight to httpbin's sidecar
    STRANGER = "stranger"  # plaintext, straight to httpbin's sidecar
    EDGE = "edge"  # an end user, through the edge


class Signature(StrEnum):
    """How a token is signed."""

    GENUINE = "genuine"
    FORGED = "forged"  # the right key ID, another key
    NONE = "none"  # alg: none, and nothing where the signature should be
    CONFUSED = "confused"  # HS256, with the published RSA key as the secret


class Change(StrEnum):
    """What happens to the mesh before the request is sent."""

    ROTATE_KEYS = "the issuer signs with new keys"
    EDIT_POLICY = "a policy file is edited"
    STOP = "countersign is stopped"
    START = "countersign is started again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token to mint: ``claims`` are added to ``sub`` and ``aud``, ``lifetime`` counts from now.

    ``confirms`` is the workload whose certificate's hash goes into ``cnf`` (RFC 8705); none, if empty.
    """

    label: str
    algorithm: str = "ES256"
    claims: Mapping[str, Any] = field(default_factory=dict)
    lifetime: float = HOUR
    signature: Signature = Signature.GENUINE
    confirms: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What makes a row right. None means that the row does not look at it.

    ``upstream`` says which values the application must have seen of a header; none at all is an empty tuple.
    """

    status: int
    decision: str = ""
    reason: str = ""
    policy: str = ""
    details: str | None = None
    body: str | None = None
    upstream: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One request. ``patience``: how long it may be repeated until it is right; 0 means it is right at once."""

    title: str
    caller: Caller
    method: str = "GET"
    path: str = "/headers"
    token: Token | None = None
    headers: tuple[tuple[str, str], ...] = ()
    change: Change | None = None
    patience: float = 0.0
    expected: Expected


_READERS: Final = "ns[apps]-policy[readers]-rule[0]"
_STAFF: Final = "ns[apps]-policy[users]-rule[0]"
_AUDITORS: Final = "ns[apps]-policy[users]-rule[1]"
_NO_LEGACY: Final = "ns[apps]-policy[no-legacy]-rule[0]"
_TOKENS: Final = "RequestAuthentication[apps/users]"
_WORKLOAD_TOKENS: Final = "RequestAuthentication[apps/workloads]"
_INTERNAL: Final = "ns[istio-system]-policy[internal-paths]-rule[0]"

_NOT_A_JWT: Final = "Jwt is not in the form of Header.Payload.Signature"

_ALICE: Final[Mapping[str, Any]] = {"sub": "alice", "groups": ["people", "staff"]}
_CAROL: Final[Mapping[str, Any]] = {"sub": "carol", "realm_access": {"roles": ["auditor"]}}
_GUEST: Final[Mapping[str, Any]] = {"sub": "mallory", "groups": ["guests"]}

STAFF_TOKEN: Final = Token(label="alice, ES256", claims=_ALICE)
AUDITOR_TOKEN: Final = Token(label="carol, EdDSA", algorithm="EdDSA", claims=_CAROL)
GUEST_TOKEN: Final = Token(label="mallory, RS256", algorithm="RS256", claims=_GUEST)

SLEEPS_TOKEN: Final = Token(label="azp: sleep", claims={"iss": WORKLOADS_ISSUER, "sub": "job-7", "azp": "sleep"})
CONFIRMED_TOKEN: Final = Token(label="cnf: sleep", claims={"sub": "sleep"}, confirms="sleep")

# What httpbin's sidecar would write about sleep; from batch it is a lie.
_SLEEPS_ELEMENT: Final = (
    f"By=spiffe://cluster.local/ns/apps/sa/httpbin;Hash={'0' * 64};"
    'Subject="";URI=spiffe://cluster.local/ns/apps/sa/sleep'
)

# The file and the two lines of the edit that `Change.EDIT_POLICY` makes.
EDITED_FILE: Final = "allow-workloads.yaml"
EDIT: Final = ("paths: [/headers, /ip]", "paths: [/headers, /ip, /status]")
_FLIP_WITHIN: Final = 5.0  # seconds


def _allow(policy: str, **more: Any) -> Expected:  # noqa: ANN401 (the fields of Expected)
    return Expected(status=200, decision="ALLOW", reason=AllowReason.RULE_MATCHED, policy=policy, **more)


def _deny(reason: Reason, status: int = 403, policy: str = "", body: str = "RBAC: access denied") -> Expected:
    return Expected(status=status, decision="DENY", reason=reason, policy=policy, body=body)


def _refuse(reason: Reason, body: str, status: int = 401, policy: str = _TOKENS) -> Expected:
    """A token that is refused before any policy is asked."""
    return _deny(reason, status=status, policy=policy, body=body)


WORKLOADS: Final = (
    Step(title="a workload with the right", caller=Caller.SLEEP, expected=_allow(_READERS)),
    Step(
        title="the method is not in the rule",
        caller=Caller.SLEEP,
        method="DELETE",
        expected=_deny(Reason.NO_ALLOW_RULE_MATCHED),
    ),
    Step(
        title="a path that is denied",
        caller=Caller.SLEEP,
        path="/internal/metrics",
        expected=_deny(Reason.DENY_RULE_MATCHED, policy=_INTERNAL),
    ),
    Step(
        title="the same path in disguise",
        caller=Caller.SLEEP,
        path="//%69nternal/metrics",
        expected=_deny(Reason.DENY_RULE_MATCHED, policy=_INTERNAL),
    ),
    Step(
        title="a namespace that is denied",
        caller=Caller.BATCH,
        expected=_deny(Reason.DENY_RULE_MATCHED, policy=_NO_LEGACY),
    ),
    Step(
        title="batch writes sleep's certificate into a header",
        caller=Caller.BATCH,
        headers=(("x-forwarded-client-cert", _SLEEPS_ELEMENT),),
        expected=_deny(Reason.DENY_RULE_MATCHED, policy=_NO_LEGACY),
    ),
    Step(
        title="plaintext against STRICT",
        caller=Caller.STRANGER,
        expected=_deny(Reason.MTLS_REQUIRED, policy="PeerAuthentication[apps/default]"),
    ),
    Step(
        title="a forged x-user without a token",
        caller=Caller.SLEEP,
        headers=(("x-user", "root"),),
        expected=_allow(_READERS, upstream={"x-user": ()}),
    ),
)

USERS: Final = (
    Step(
        title="a claim that is a list",
        caller=Caller.EDGE,
        token=STAFF_TOKEN,
        expected=_allow(_STAFF, upstream={"x-user": ("alice",), "authorization": ()}),
    ),
    Step(
        title="a nested claim",
        caller=Caller.EDGE,
        path="/reports/2026",
        token=AUDITOR_TOKEN,
        expected=_allow(_AUDITORS, upstream={"x-user": ("carol",), "authorization": ()}),
    ),
    Step(
        title="a forged x-user beside a token",
        caller=Caller.EDGE,
        token=STAFF_TOKEN,
        headers=(("x-user", "root"),),
        expected=_allow(_STAFF, upstream={"x-user": ("alice",)}),
    ),
    Step(
        title="the claim has another value",
        caller=Caller.EDGE,
        token=GUEST_TOKEN,
        expected=_deny(Reason.NO_ALLOW_RULE_MATCHED),
    ),
    Step(title="no token", caller=Caller.EDGE, expected=_deny(Reason.NO_ALLOW_RULE_MATCHED)),
    Step(
        title="the user's signature without the gateway's",
        caller=Caller.SLEEP,
        path="/reports/2026",
        token=AUDITOR_TOKEN,
        expected=_deny(Reason.NO_ALLOW_RULE_MATCHED),
    ),
    Step(
        title="expired an hour ago",
        caller=Caller.EDGE,
        token=Token(label="alice, expired", claims=_ALICE, lifetime=-HOUR),
        expected=_refuse(Reason.TOKEN_EXPIRED, "Jwt is expired"),
    ),
    Step(
        title="an issuer nobody trusts",
        caller=Caller.EDGE,
        token=Token(label="wrong iss", claims={**_ALICE, "iss": "https://elsewhere.example"}),
        expected=_refuse(Reason.TOKEN_ISSUER, "Jwt issuer is not configured"),
    ),
    Step(
        title="meant for another audience",
        caller=Caller.EDGE,
        token=Token(label="wrong aud", claims={**_ALICE, "aud": "payments"}),
        expected=_refuse(Reason.TOKEN_AUDIENCE, "Audiences in Jwt are not allowed", status=403),
    ),
    Step(
        title="signed with another key",
        caller=Caller.EDGE,
        token=Token(label="forged, RS256", algorithm="RS256", claims=_ALICE, signature=Signature.FORGED),
        expected=_refuse(Reason.TOKEN_SIGNATURE, "Jwt verification fails"),
    ),
    Step(
        title="not signed at all",
        caller=Caller.EDGE,
        token=Token(label="alg: none", claims=_ALICE, signature=Signature.NONE),
        expected=_refuse(Reason.TOKEN_MALFORMED, f"{_NOT_A_JWT} with two dots and 3 sections"),
    ),
    Step(
        title="the public key as a shared secret",
        caller=Caller.EDGE,
        token=Token(label="confused, HS256", claims=_ALICE, signature=Signature.CONFUSED),
        expected=_refuse(Reason.TOKEN_ALGORITHM, "Jwt header [alg] is not supported"),
    ),
)

BOUND: Final = (
    Step(title="a token that says whose it is", caller=Caller.SLEEP, token=SLEEPS_TOKEN, expected=_allow(_READERS)),
    Step(
        title="the same token, stolen by batch",
        caller=Caller.BATCH,
        token=SLEEPS_TOKEN,
        expected=_refuse(Reason.TOKEN_OTHER_PEER, "Jwt is bound to another workload", policy=_WORKLOAD_TOKENS),
    ),
    Step(title="a token of one certificate", caller=Caller.SLEEP, token=CONFIRMED_TOKEN, expected=_allow(_READERS)),
    Step(
        title="the same token over batch's connection",
        caller=Caller.BATCH,
        token=CONFIRMED_TOKEN,
        expected=_refuse(Reason.TOKEN_OTHER_CERTIFICATE, "Jwt is bound to another certificate"),
    ),
)

CHANGES: Final = (
    Step(
        title="the key is rotated: the new one counts at once",
        caller=Caller.EDGE,
        token=STAFF_TOKEN,
        change=Change.ROTATE_KEYS,
        expected=_allow(_STAFF, upstream={"x-user": ("alice",)}),
    ),
    Step(
        title="a path that no rule allows",
        caller=Caller.SLEEP,
        path="/status",
        expected=_deny(Reason.NO_ALLOW_RULE_MATCHED),
    ),
    Step(
        title="the policy file is edited: the answer flips",
        caller=Caller.SLEEP,
        path="/status",
        change=Change.EDIT_POLICY,
        patience=_FLIP_WITHIN,
        expected=_allow(_READERS),
    ),
    Step(
        title="Countersign is stopped: fail closed",
        caller=Caller.SLEEP,
        change=Change.STOP,
        expected=Expected(status=503, details="ext_authz_error"),
    ),
    Step(
        title="Countersign is back",
        caller=Caller.SLEEP,
        change=Change.START,
        expected=_allow(_READERS),
    ),
)

SCENARIO: Final = (*WORKLOADS, *USERS, *BOUND, *CHANGES)
