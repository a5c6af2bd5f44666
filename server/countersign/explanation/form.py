"""What an explanation says, and its JSON. `wording` puts it together, `cli.explanation_text` is for people.

The fields of these classes are the keys of ``-o json``: a name that is there stays there.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from countersign.explanation.conceal import without_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A policy or rule: its name in Istio's form, and ``file:line``."""

    id: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """One header line."""

    name: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What the client gets instead of the workload's answer; a TCP connection is closed, and gets none."""

    status: int
    body: str
    headers: tuple[Header, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What Envoy does to the allowed request."""

    set_headers: tuple[Header, ...]
    remove_headers: tuple[str, ...]
    remove_query_parameters: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepLine:
    """One step: ``outcome`` is ``passed``, ``allowed``, ``denied`` or ``not reached``; the decider is one of two."""

    step: str
    title: str
    outcome: str
    found: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field of a rule. ``index`` tells the entries of ``part`` (``from``, ``to``, ``when``) apart."""

    part: str
    index: int
    field: str
    negated: bool
    wanted: tuple[str, ...]
    got: str
    outcome: str  # match, no match, unreadable
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleLine:
    """One rule and all of its fields; one without any is for every request. One of a ``dry_run`` decides nothing."""

    id: str
    source: str
    action: str
    outcome: str
    fields: tuple[Field, ...]
    dry_run: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Miss:
    """The rule that came nearest, and the fields that kept it from matching."""

    id: str
    source: str
    fields: tuple[Field, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mtls:
    """What PeerAuthentication wants on the port; ``policy`` is null where Istio's default stands."""

    mode: str
    policy: Place | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadFound:
    """Whose policies were asked. ``services`` are those that a request to a waypoint targets, ``Service/ns/name``."""

    namespace: str
    labels: Mapping[str, str]
    gateway: str
    gateway_class: str
    services: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Whose token it is. ``signature`` is ``verified`` or ``not checked``."""

    issuer: str
    subject: str | None
    claims: Mapping[str, Any]
    signature: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What would be decided if the policies of a dry run were in force; null if there are none."""

    decision: str
    reason: str
    policy: Place | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A decision and why. ``step`` is the one that decided; what was not found or not reached is null or empty.

    ``bindings`` are what the token is held against besides: claims that must name the peer.
    """

    decision: str
    reason: str
    detail: str
    policy: Place | None
    step: str
    response: Response | None
    changes: Changes | None
    pipeline: tuple[StepLine, ...]
    workload: WorkloadFound | None
    peer: str | None
    mtls: Mtls | None
    user: User | None
    bindings: tuple[Field, ...]
    rules: tuple[RuleLine, ...]
    nearest: Miss | None
    audit: Place | None
    dry_run: Tried | None
    notes: tuple[str, ...]


def as_json(explained: Explanation) -> str:
    """One JSON object."""
    return without_tokens(json.dumps(asdict(explained), indent=2))
