"""Istio's security resources as values: read once, immutable, every part knowing its place in its file.

Source: security.istio.io v1 and v1beta1: PeerAuthentication, RequestAuthentication, AuthorizationPolicy.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from countersign.core.jwt_rule import JwtRule


class MtlsMode(StrEnum):
    """``mtls.mode``. UNSET inherits from the level above."""

    UNSET = "UNSET"
    DISABLE = "DISABLE"
    PERMISSIVE = "PERMISSIVE"
    STRICT = "STRICT"


class Action(StrEnum):
    """``action`` of an AuthorizationPolicy."""

    ALLOW = "ALLOW"
    DENY = "DENY"
    AUDIT = "AUDIT"
    CUSTOM = "CUSTOM"


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetRef:
    """One ``targetRefs`` entry: it names a resource of the policy's own namespace."""

    kind: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Meta:
    """What every resource has. Without ``selector`` and ``targets`` it is for every workload of the namespace."""

    name: str
    namespace: str
    selector: Mapping[str, str] = field(default_factory=dict)
    targets: tuple[TargetRef, ...] = ()
    created: str = ""  # metadata.creationTimestamp, RFC 3339 in UTC, so that it sorts as text
    source: str  # file:line


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerAuthentication:
    """Which ports want mTLS."""

    meta: Meta
    mode: MtlsMode = MtlsMode.UNSET
    ports: Mapping[int, MtlsMode] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestAuthentication:
    """Which issuers' tokens count."""

    meta: Meta
    rules: tuple[JwtRule, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One field with its values: it holds if any value matches the attribute; a negated one if none does.

    ``attribute`` is the `when` key of the same meaning (``principals`` reads ``source.principal``), ``argument``
    what stands in its brackets, ``field`` what the file says.
    """

    attribute: str
    argument: tuple[str, ...] = ()
    field: str
    values: tuple[str, ...]
    negated: bool
    source: str


Clause = tuple[Term, ...]  # a source, an operation or a condition: all of its terms hold


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """It matches if any of ``sources``, any of ``operations`` and all of ``conditions`` do; no such part: true."""

    index: int
    sources: tuple[Clause, ...] = ()
    operations: tuple[Clause, ...] = ()
    conditions: tuple[Clause, ...] = ()
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizationPolicy:
    """Who may do what. Without rules an ALLOW policy allows nothing. ``dry_run``: judged and reported, never enforced.

    ``provider`` is the extension provider that a CUSTOM policy names.
    """

    meta: Meta
    action: Action = Action.ALLOW
    dry_run: bool = False
    provider: str = ""
    rules: tuple[Rule, ...] = ()

    def rule_id(self, rule: Rule) -> str:
        """Istio's name of a rule, as it stands in access logs."""
        return f"ns[{self.meta.namespace}]-policy[{self.meta.name}]-rule[{rule.index}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """Everything that was loaded, unscoped."""

    peer_authentications: tuple[PeerAuthentication, ...] = ()
    request_authentications: tuple[RequestAuthentication, ...] = ()
    authorization_policies: tuple[AuthorizationPolicy, ...] = ()

    def __len__(self) -> int:
        return len(self.peer_authentications) + len(self.request_authentications) + len(self.authorization_policies)
