"""Explanations by what is in force: of a request that somebody describes, and of a denial, asked again."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from countersign.admin.denials import Denial
from countersign.admin.described import TO, description
from countersign.authorize import judge
from countersign.core.decision import Deny
from countersign.core.facts import RequestFacts
from countersign.edge.recorded import facts_of, parse_recorded
from countersign.explanation.described import described_request, towards
from countersign.explanation.explained import Judged, explained
from countersign.explanation.form import Explanation
from countersign.judgement import Judgement, Step
from countersign.policy.scope import PolicySet
from countersign.snapshot import Snapshot
from countersign.tokens.authenticate import authenticate
from countersign.tokens.strict_json import JsonError, loads


def explain_asked(text: str, snapshot: Snapshot, now: float) -> Explanation:
    """Explain a CheckRequest in JSON, or a request that fields describe. Raise `RecordedError` or `DescriptionError`.

    Tokens are verified with the keys at hand: nothing is taken for true here that serving would not take.
    """
    fields = _fields(text)
    return _explain_recorded(text, snapshot, now) if fields is None else _explain_described(fields, snapshot, now)


def _fields(text: str) -> Mapping[str, Any] | None:
    """The fields of a description; None if the text is to be read as a CheckRequest."""
    try:
        document = loads(text)
    except JsonError:
        return None  # the same is said of either
    return document if isinstance(document, dict) and "attributes" not in document else None


def _explain_described(fields: Mapping[str, Any], snapshot: Snapshot, now: float) -> Explanation:
    said = description(fields)
    snapshot = replace(snapshot, mesh=towards(snapshot.mesh, fields.get(TO)))
    return _explained(described_request(said, snapshot.mesh), snapshot, now, ())


def _explain_recorded(text: str, snapshot: Snapshot, now: float) -> Explanation:
    """At its own time, if it has one."""
    recorded = parse_recorded(text)
    notes = (f"`{recorded.unread}` is no field of a CheckRequest and was not read",) if recorded.unread else ()
    return _explained(recorded.facts, snapshot, now if recorded.time is None else recorded.time, notes)


def explain_denial(denial: Denial, snapshot: Snapshot) -> Explanation | None:
    """Ask the request of a denial again, at the time of the denial; None if the request was not kept."""
    if not denial.payload:
        return None
    found = _explained(facts_of(denial.payload), snapshot, denial.at, ())
    notes = found.notes
    generation = snapshot.policies.generation if snapshot.policies else 0
    if denial.denied.generation not in (0, generation):
        notes = (
            f"asked again by policies of generation {generation}; those of {denial.denied.generation} had denied",
            *notes,
        )
    if found.reason != denial.denied.reason:
        notes = (
            f"it was denied for {denial.denied.reason}; asked again it is {found.decision}, {found.reason}",
            *notes,
        )
    return replace(found, notes=notes)


def _explained(facts: RequestFacts | Deny, snapshot: Snapshot, now: float, notes: tuple[str, ...]) -> Explanation:
    snapshot = _apart(snapshot)
    if isinstance(facts, Deny):
        unread = Judgement(step=Step.REQUEST, decision=facts)
        return explained(Judged(judgement=unread, facts=None, notes=notes), snapshot)
    keys, posture = snapshot.keys, snapshot.mesh.posture
    judgement = judge(
        facts, snapshot, lambda http, rules: authenticate(http, rules, keys, now, posture, may_wait=False)
    )
    return explained(Judged(judgement=judgement, facts=facts, notes=notes), snapshot)


def _apart(snapshot: Snapshot) -> Snapshot:
    """The same policies, with a memory of their own: that of the checks must not fill with what somebody made up."""
    policies = snapshot.policies
    if policies is None:
        return snapshot
    return replace(
        snapshot, policies=PolicySet(policies.resources, snapshot.mesh.root_namespace, policies.generation), tokens=None
    )
