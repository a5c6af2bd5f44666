"""The outcome of a check: `Allow` or `Deny`, two types with no default instance.

A `Reason` is for ever: it is a metric label, a log field and what a test expects.
"""

from dataclasses import dataclass
from enum import StrEnum

from countersign.core.per_check import per_check


class AllowReason(StrEnum):
    """Why a request was let through."""

    RULE_MATCHED = "allow-rule-matched"
    NO_ALLOW_POLICY = "no-allow-policy-applies"  # Istio: without an ALLOW policy everything is allowed


class Reason(StrEnum):
    """Why a request was refused. Closed: every denial has exactly one."""

    # The request cannot be judged.
    REQUEST_MALFORMED = "request-malformed"  # bytes that are no CheckRequest, or attributes no request can have
    REQUEST_INCOMPLETE = "request-incomplete"  # Envoy left out what every HTTP check carries
    WORKLOAD_UNKNOWN = "workload-unknown"
    NO_POLICIES = "no-policies-loaded"
    DEADLINE_PASSED = "deadline-passed"
    OVERLOADED = "server-overloaded"
    INTERNAL_ERROR = "internal-error"
    CALLER_NOT_ALLOWED = "caller-not-allowed"  # whoever asks for the decision may not: it is none of the listed Envoys
    UNRECORDED = "decision-unrecorded"  # the log must have every decision, and takes no more now
    CUSTOM_PROVIDER = "custom-provider-unavailable"  # a CUSTOM policy's rule matched, and nobody can be asked
    # The first proof: the workload.
    PEER_MALFORMED = "peer-malformed"
    PEER_MISMATCH = "peer-mismatch"  # Envoy's principal and XFCC name different peers
    PEER_UNTRUSTED_PROXY = "peer-untrusted-proxy"  # who wrote XFCC is none of the proxies that may
    PEER_CERTIFICATE_MALFORMED = "peer-certificate-malformed"  # unreadable, or names a workload and may not
    PEER_CERTIFICATE_MISMATCH = "peer-certificate-mismatch"  # another one than the principal or XFCC speak of
    PEER_UNTRUSTED_DOMAIN = "peer-untrusted-domain"
    MTLS_REQUIRED = "mtls-required"
    # The second proof: the user.
    TOKEN_MISSING = "token-missing"  # noqa: S105 (a reason, not a password)
    TOKEN_MALFORMED = "token-malformed"  # noqa: S105 (a reason, not a password)
    TOKEN_AMBIGUOUS = "token-ambiguous"  # noqa: S105
    TOKEN_ALGORITHM = "token-algorithm-refused"  # noqa: S105
    TOKEN_TYPE = "token-type-refused"  # noqa: S105
    TOKEN_ISSUER = "token-unknown-issuer"  # noqa: S105
    TOKEN_AUDIENCE = "token-wrong-audience"  # noqa: S105
    TOKEN_EXPIRED = "token-expired"  # noqa: S105
    TOKEN_NOT_YET_VALID = "token-not-yet-valid"  # noqa: S105
    TOKEN_NO_EXPIRY = "token-without-expiry"  # noqa: S105
    TOKEN_SIGNATURE = "token-bad-signature"  # noqa: S105
    TOKEN_UNKNOWN_KEY = "token-unknown-key"  # noqa: S105
    KEYS_UNAVAILABLE = "keys-unavailable"
    KEYS_STALE = "keys-stale"  # there were good keys, and for too long nobody has confirmed them
    # Both proofs together: a token in the hands of another workload.
    TOKEN_CONFIRMATION_MALFORMED = "token-confirmation-malformed"  # noqa: S105
    TOKEN_CONFIRMATION_UNSUPPORTED = "token-confirmation-unsupported"  # noqa: S105
    TOKEN_WITHOUT_CERTIFICATE = "token-bound-without-certificate"  # noqa: S105 (bound to one, and none is proven)
    TOKEN_OTHER_CERTIFICATE = "token-bound-to-other-certificate"  # noqa: S105
    TOKEN_WITHOUT_PEER = "token-bound-without-peer"  # noqa: S105
    TOKEN_NAMES_NO_PEER = "token-names-no-peer"  # noqa: S105
    TOKEN_OTHER_PEER = "token-bound-to-other-peer"  # noqa: S105
    # The policies.
    DENY_RULE_MATCHED = "deny-rule-matched"
    NO_ALLOW_RULE_MATCHED = "no-allow-rule-matched"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRef:
    """What decided. ``id`` in Istio's form, ``ns[foo]-policy[name]-rule[0]``; ``source`` is ``file:line``."""

    id: str
    source: str


@per_check
class Mutations:
    """What Envoy does to an allowed request before it forwards it. Names are lower case.

    ``set_headers`` replaces every line of a name by the given lines; ``remove_headers`` never names a set one.
    """

    set_headers: tuple[tuple[str, str], ...] = ()
    remove_headers: tuple[str, ...] = ()
    remove_query_parameters: tuple[str, ...] = ()


@per_check
class DryRun:
    """What would have been decided if the policies that are only tried were in force too."""

    reason: AllowReason | Reason
    policy: PolicyRef | None

    @property
    def allowed(self) -> bool:
        """Whether the request would have been let through."""
        return isinstance(self.reason, AllowReason)


@per_check
class Allow:
    """The request goes on, with these mutations. ``audit`` is the AUDIT rule that matched."""

    reason: AllowReason
    policy: PolicyRef | None
    mutations: Mutations
    generation: int
    audit: PolicyRef | None = None
    dry_run: DryRun | None = None


@per_check
class Deny:
    """The request ends here with this HTTP answer.

    ``detail`` is for the operator's log and trace; the client only ever gets ``status``, ``body``, ``headers``.
    """

    reason: Reason
    status: int
    body: str
    policy: PolicyRef | None = None
    headers: tuple[tuple[str, str], ...] = ()
    detail: str = ""
    generation: int = 0
    audit: PolicyRef | None = None
    dry_run: DryRun | None = None


Decision = Allow | Deny
