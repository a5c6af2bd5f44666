"""What the admin API shows, as values that are fit for JSON. Nothing in them is a secret."""

import base64
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from countersign.admin.denials import Denial
from countersign.admin.explaining import explain_asked, explain_denial
from countersign.core.decision import Deny
from countersign.core.jwt_rule import InlineKeys
from countersign.edge.keys.url import shown
from countersign.edge.recorded import facts_of
from countersign.explanation.effective import effective, label, listed, workload_named
from countersign.explanation.explained import concealer
from countersign.explanation.remarks import request_line
from countersign.policy.resources import Resources
from countersign.policy.workload import Workload
from countersign.snapshot import Snapshot
from countersign.tokens.keyring import SourceState
from countersign.tokens.keys import Key, KeySet

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Where all of it comes from. ``configuration`` is the text of `serve --print-config`.

    ``workloads`` are those that requests were for. Everything may be asked for from any thread.
    """

    snapshot: Callable[[], Snapshot]
    key_states: Callable[[], tuple[SourceState, ...]]
    denials: Callable[[], Iterable[Denial]]
    workloads: Callable[[], Iterable[Workload]]
    configuration: str

    def policies(self) -> Json:
        """Every resource, and every workload that was asked for."""
        snapshot = self.snapshot()
        return {
            "generation": 0 if snapshot.policies is None else snapshot.policies.generation,
            "policies": [asdict(each) for each in listed(_resources(snapshot))],
            "workloads": list(map(_workload, self.workloads())),
        }

    def effective(self, name: str, labels: Iterable[str]) -> Json:
        """What applies to the workload ``NS/APP`` with these labels, ``K=V``. Raise `WorkloadError`."""
        snapshot = self.snapshot()
        workload = workload_named(name, tuple(map(label, labels)))
        return asdict(effective(_resources(snapshot), workload, snapshot.mesh.root_namespace))

    def jwks(self) -> Json:
        """Every key set: those that are fetched with how that goes, and those that are written into policies."""
        snapshot = self.snapshot()
        rules = [
            (resource.meta.source, rule)
            for resource in _resources(snapshot).request_authentications
            for rule in resource.rules
        ]
        issuers: dict[object, dict[str, None]] = {}
        for _, rule in rules:
            issuers.setdefault(rule.keys, {})[rule.issuer] = None
        fetched = [_fetched(state, tuple(issuers.get(state.source, ()))) for state in self.key_states()]
        inline = [
            {"source": f"jwks in {place}", "issuers": [rule.issuer], **_keys(snapshot.keys.get(rule.keys))}
            for place, rule in rules
            if isinstance(rule.keys, InlineKeys)
        ]
        return {"sources": [*fetched, *inline]}

    def decisions(self) -> Json:
        """The latest denials, the latest first."""
        snapshot = self.snapshot()
        return {"denials": [_denial(denial, snapshot) for denial in self.denials()]}

    def decision(self, number: str) -> Json | None:
        """One denial and its explanation; None if it is not among the latest."""
        snapshot = self.snapshot()
        for denial in self.denials():
            if denial.id == number:
                found = explain_denial(denial, snapshot)
                return {**_denial(denial, snapshot), "explanation": None if found is None else asdict(found)}
        return None

    def explain(self, text: str) -> Json:
        """The explanation of a request in JSON. Raise `RecordedError` or `DescriptionError`."""
        return asdict(explain_asked(text, self.snapshot(), time.time()))


def workloads_of(snapshot: Snapshot) -> tuple[Workload, ...]:
    """The workloads that its policies were asked for."""
    return () if snapshot.policies is None else snapshot.policies.workloads()


def _resources(snapshot: Snapshot) -> Resources:
    return Resources() if snapshot.policies is None else snapshot.policies.resources


def _workload(workload: Workload) -> Json:
    return {"namespace": workload.namespace, "labels": dict(workload.labels), "gateway": workload.gateway}


def _fetched(state: SourceState, issuers: tuple[str, ...]) -> Json:
    return {
        "source": shown(state.source),
        "issuers": list(issuers),
        "origin": state.origin,
        "age_seconds": _whole(state.age),
        "expires_in_seconds": _whole(state.expires_in),
        "next_refresh_in_seconds": _whole(state.refresh_in),
        "failures": state.failures,
        "error": state.error,
        **_keys(state.keys),
    }


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds)


def _keys(keys: KeySet | None) -> Json:
    if keys is None:
        return {"keys": []}
    usable = [
        {
            "kid": key.kid,
            "algorithms": sorted(key.algorithms),
            "thumbprint": _thumbprint(key),
            "usable": True,
            "why_not": "",
        }
        for key in keys.keys
    ]
    refused = [
        {"kid": key.kid, "algorithms": [], "thumbprint": "", "usable": False, "why_not": key.why}
        for key in keys.rejected
    ]
    return {"keys": [*usable, *refused]}


def _thumbprint(key: Key) -> str:
    """As `countersign jwks` prints it."""
    return base64.urlsafe_b64encode(bytes.fromhex(key.thumbprint)).rstrip(b"=").decode()


def _denial(denial: Denial, snapshot: Snapshot) -> Json:
    denied = denial.denied
    read = facts_of(denial.payload) if denial.payload else None
    facts = None if isinstance(read, Deny) else read
    return {
        "id": denial.id,
        "time": datetime.fromtimestamp(denial.at, UTC).isoformat(timespec="milliseconds"),
        "request": request_line(facts),
        "reason": denied.reason,
        "status": denied.status,
        "detail": concealer(facts, snapshot).text(denied.detail),
        "policy": None if denied.policy is None else {"id": denied.policy.id, "source": denied.policy.source},
        "step": denial.step,
        "workload": None if denial.workload is None else _workload(denial.workload),
        "peer": denial.peer or None,
        "generation": denied.generation,
    }
