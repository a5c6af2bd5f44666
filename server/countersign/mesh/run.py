"""Walks through the scenario and judges every row: what came, against what must come."""

import json
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from countersign.mesh.client import Answer, Door, send
from countersign.mesh.process import MeshError
from countersign.mesh.scenario import Caller, Change, Expected, Step, Token

_RETRY: Final = 0.02  # seconds between two tries of a patient step
_STALL: Final = 5.0  # seconds that a busy machine may keep Envoy waiting for a decision for longer than its timeout
_SHOWN: Final = 100  # characters of a value in a fault


class Mesh(Protocol):
    """What the scenario asks of a mesh, wherever it runs."""

    @property
    def policies(self) -> Path:
        """The directory that Countersign reads, as it names it."""

    def door(self, caller: Caller) -> Door:
        """Where the caller enters."""

    def token(self, token: Token) -> str:
        """A fresh token."""

    def apply(self, change: Change) -> None:
        """Change the mesh while it runs."""

    def logged(self, request_id: str) -> Mapping[str, Any]:
        """What is known of a request: ``ext_authz``, what Countersign said; ``details``, Envoy's reason or None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What came of a step. ``upstream`` is what the application received, None if it received nothing."""

    status: int
    body: str = ""
    decision: str = ""
    reason: str = ""
    policy: str = ""
    source: str = ""
    detail: str = ""
    details: str = ""
    upstream: tuple[tuple[str, str], ...] | None = None
    milliseconds: float = 0.0
    tries: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A step, what came of it, and what is wrong with that: nothing, if the row is right."""

    step: Step
    observed: Observed
    faults: tuple[str, ...] = ()

    @property
    def right(self) -> bool:
        """Everything is as expected."""
        return not self.faults


def walk(mesh: Mesh, steps: tuple[Step, ...]) -> Iterator[Row]:
    """Send every request, one after the other, and judge each."""
    for step in steps:
        if step.change is not None:
            mesh.apply(step.change)
        observed = _observe(mesh, step)
        yield Row(step=step, observed=observed, faults=judge(step.expected, observed))


def judge(expected: Expected, observed: Observed) -> tuple[str, ...]:
    """Every way in which what came differs from what must come."""
    pairs: list[tuple[str, object, object]] = [
        ("HTTP status", expected.status, observed.status),
        ("decision", expected.decision, observed.decision),
        ("reason", expected.reason, observed.reason),
        ("policy", expected.policy, observed.policy),
        ("a file:line of the rule", bool(expected.policy), bool(observed.source)),
    ]
    if expected.details is not None:
        pairs.append(("response code details", expected.details, observed.details))
    if expected.body is not None:
        pairs.append(("body", expected.body, observed.body))
    received = observed.upstream or ()
    for name, values in expected.upstream.items():
        got = tuple(value for key, value in received if key.lower() == name)
        pairs.append((f"{name} at the application", values, got))
    pairs.append(("reached the application", expected.status < 300, observed.upstream is not None))  # noqa: PLR2004 (2xx)
    return tuple(f"{what}: expected {_show(want)}, got {_show(got)}" for what, want, got in pairs if want != got)


def _show(value: object) -> str:
    text = repr(str(value) if isinstance(value, str) else value)  # a Reason shows as its value
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _observe(mesh: Mesh, step: Step) -> Observed:
    """Send the step's request; a patient step is repeated until it is right or its time is over.

    So is one that Envoy has given up, because on this machine the decision came later than its timeout.
    """
    headers = (*step.headers, *_authorization(mesh, step.token))
    started = time.monotonic()
    tries = 1
    while True:
        observed = _once(mesh, step, headers, started, tries)
        patience = max(step.patience, _STALL) if gave_up(step.expected, observed) else step.patience
        if not judge(step.expected, observed) or time.monotonic() - started >= patience:
            return observed
        time.sleep(_RETRY)
        tries += 1


def gave_up(expected: Expected, observed: Observed) -> bool:
    """Whether Envoy has answered for want of a decision, where there should be one."""
    return bool(expected.decision) and not observed.decision and observed.details == "ext_authz_error"


def _authorization(mesh: Mesh, token: Token | None) -> tuple[tuple[str, str], ...]:
    return () if token is None else (("authorization", f"Bearer {mesh.token(token)}"),)


def _once(mesh: Mesh, step: Step, headers: tuple[tuple[str, str], ...], started: float, tries: int) -> Observed:
    answer = send(mesh.door(step.caller), step.method, step.path, (("x-request-id", str(uuid.uuid4())), *headers))
    milliseconds = round((time.monotonic() - started) * 1000, 1)
    entry = _log_entry(mesh, answer)
    said: Mapping[str, Any] = entry.get("ext_authz") or {}
    here = f"{mesh.policies}/"
    return Observed(
        status=answer.status,
        body=answer.body,
        decision=said.get("decision", ""),
        reason=said.get("reason", ""),
        policy=said.get("policy", ""),
        source=said.get("source", "").removeprefix(here),
        detail=said.get("detail", "").replace(here, ""),
        details=entry["details"] or "",
        upstream=_echo(answer),
        milliseconds=milliseconds,
        tries=tries,
    )


def _log_entry(mesh: Mesh, answer: Answer) -> Mapping[str, Any]:
    """The line of httpbin's sidecar, found by the id that Envoy gives back: ours, or at the edge a new one."""
    try:
        return mesh.logged(answer.headers.get("x-request-id", "without an id"))
    except MeshError as error:
        raise MeshError(
            f"answered {answer.status} `{answer.body[:_SHOWN]}` before httpbin's sidecar: {error}"
        ) from error


def _echo(answer: Answer) -> tuple[tuple[str, str], ...] | None:
    """The header lines that the application received, if it was the application that answered."""
    if answer.headers.get("content-type") != "application/json":
        return None
    return tuple((name, value) for name, value in json.loads(answer.body)["headers"])
