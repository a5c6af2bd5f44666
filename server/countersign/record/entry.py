"""What is written down of a decision, in the shape of OPA's decision log, so that collectors know it.

There is never a header in it (but for the ID that Envoy gave the request, and the IDs of the trace), so no token,
cookie or certificate. Who the caller is, is said only as far as it was proven.
Source: openpolicyagent.org, "Decision Logs"; W3C Trace Context 3.2.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

from countersign.core.decision import Allow, Decision, DryRun, PolicyRef
from countersign.core.facts import Endpoint, HttpRequest, RequestFacts
from countersign.core.identity import VerifiedToken
from countersign.edge.metadata import texts
from countersign.edge.observed import Answered, Stages
from countersign.judgement import Judgement
from countersign.policy.workload import Workload
from countersign.record.text import path_of, plain

PATH: Final = "istio/authz/allow"  # what OPA would call the question
_OK: Final = 200
_LABELS: Final = 32  # of a workload
_RULE: Final = re.compile(r"(.*)-rule\[([0-9]+)\]")
_TRACE: Final = "traceparent"
_PARENT: Final = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}")

Record = dict[str, Any]


def entry(answered: Answered, facts: RequestFacts | None, labels: Mapping[str, str]) -> Record:
    """The record of an answer. ``facts`` are those of its payload, None where that cannot be read."""
    judged = answered.judged
    http = None if facts is None else facts.http
    record: Record = {"timestamp": timestamp(answered.at), "decision_id": answered.id, "labels": labels}
    parent = _trace_parent(answered, http)
    if parent is not None:
        record["trace_id"], record["span_id"] = parent.groups()
    record["path"] = PATH
    record["input"] = {} if facts is None else _input(facts, judged)
    record["result"] = _result(judged.decision)
    record["policies"] = {"generation": judged.decision.generation}
    record["metrics"] = _metrics(answered.stages, remembered=answered.remembered)
    return record


def timestamp(seconds: float) -> str:
    """RFC 3339, to the microsecond."""
    whole, part = divmod(round(seconds * 1e6), 1_000_000)
    return f"{_second(whole)}.{part:06}Z"


@lru_cache(maxsize=8)  # a thousand records may be of one second
def _second(whole: int) -> str:
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}"


def _input(facts: RequestFacts, judged: Judgement) -> Record:
    source, destination = _address(facts.source), _address(facts.destination)
    if judged.peer is not None:
        source["principal"] = plain(str(judged.peer))
    if facts.destination.principal:
        destination["principal"] = plain(facts.destination.principal)
    if judged.workload is not None:
        destination["workload"] = _workload(judged.workload)
    found: Record = {"source": source, "destination": destination}
    if facts.http is not None:
        found["request"] = _request(facts.http)
    if facts.sni:
        found["sni"] = plain(facts.sni)
    if judged.token is not None:
        found["token"] = _token(judged.token)
    return found


def _address(endpoint: Endpoint) -> Record:
    found: Record = {}
    if endpoint.address:
        found["address"] = plain(endpoint.address)
    if endpoint.port:
        found["port"] = endpoint.port
    return found


def _workload(workload: Workload) -> Record:
    found: Record = {"namespace": plain(workload.namespace)}
    if workload.labels:
        found["labels"] = {plain(name): plain(value) for name, value in workload.labels[:_LABELS]}
    if workload.gateway:
        found["gateway"] = plain(workload.gateway)
    if workload.services:
        found["services"] = [plain(str(service)) for service in workload.services[:_LABELS]]
    return found


def _request(http: HttpRequest) -> Record:
    found: Record = {
        "method": plain(http.method),
        "host": plain(http.host.rpartition("@")[2]),  # no host has userinfo, but this text is the client's
        "path": path_of(http.path),
        "scheme": plain(http.scheme),
    }
    number = http.headers.values("x-request-id")
    if number:
        found["id"] = plain(number[0])
    return found


def _token(token: VerifiedToken) -> Record:
    found: Record = {"iss": plain(token.issuer)}
    if token.subject is not None:
        found["sub"] = plain(token.subject)
    return found


def _result(decision: Decision) -> Record:
    allowed = isinstance(decision, Allow)
    found: Record = {
        "allowed": allowed,
        "action": "ALLOW" if allowed else "DENY",
        "reason": str(decision.reason),
        "http_status": _OK if isinstance(decision, Allow) else decision.status,
    }
    if decision.policy is not None:
        found |= _policy(decision.policy)
    if not isinstance(decision, Allow) and decision.detail:
        found["detail"] = plain(decision.detail)
    if decision.audit is not None:
        found["audit"] = _policy(decision.audit)
    if decision.dry_run is not None:
        found["dry_run"] = _dry_run(decision.dry_run)
    return found


def _dry_run(tried: DryRun) -> Record:
    would = "ALLOW" if tried.allowed else "DENY"
    return {"action": would, "reason": str(tried.reason), **({} if tried.policy is None else _policy(tried.policy))}


def _policy(policy: PolicyRef) -> Record:
    found: Record = {"policy": plain(policy.id), "source": plain(policy.source)}
    rule = _RULE.fullmatch(policy.id)
    if rule is not None:
        found["policy"], found["rule"] = plain(rule[1]), int(rule[2])
    return found


def _metrics(stages: Stages, *, remembered: bool) -> Record:
    found: Record = {f"{name}_us": round(seconds * 1e6, 1) for name, seconds in zip(_STAGES, stages, strict=True)}
    return {**found, "remembered": remembered}


_STAGES: Final[Iterable[str]] = Stages._fields


def _trace_parent(answered: Answered, http: HttpRequest | None) -> re.Match[str] | None:
    """The one traceparent of version 00, of the call before the request's: of several, or of another form, none is."""
    for lines in (texts(answered.metadata, _TRACE), () if http is None else http.headers.values(_TRACE)):
        parent = _PARENT.fullmatch(lines[0]) if len(lines) == 1 else None
        if parent is not None:
            return parent
    return None
