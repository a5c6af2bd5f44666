"""The smallest policies and request that still disagree: all that can be left out, left out, in an arena of its own."""

import copy
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from tests.envoy.judge import compare
from tests.envoy.judge.arena import Arena
from tests.envoy.judge.cases import Case
from tests.envoy.judge.compare import Disagreement
from tests.envoy.judge.matchers import Json
from tests.envoy.judge.policy_set import MESH, PolicySet, Prepare

_ROUNDS: Final = 30
_KEPT: Final = frozenset(
    {
        "apiVersion",
        "kind",
        "metadata",
        "spec",
        "issuer",
        "jwks",
        "jwksUri",
        "name",
        "namespace",
        "key",
        "header",
        "claim",
    }
)
_PLAIN: Final = {
    "source": "127.0.0.1", "listener": "normalising", "sni": "", "method": "GET", "path": "/", "host": "web.example",
    "caller": "sleep",
}  # fmt: skip


def smallest(found: Disagreement, prepare: Prepare = list) -> Disagreement:
    """Leave out one part after another, as long as the answers differ in the same way."""
    for _ in range(_ROUNDS):
        smaller = _step(found, prepare)
        if smaller is None:
            break
        found = smaller
    return found


def _step(found: Disagreement, prepare: Prepare) -> Disagreement | None:
    """Try everything that could be left out, all in one arena, and take the first that still shows the difference."""
    candidates = list(_candidates(found))
    if not candidates:
        return None
    renamed = [_renamed(documents, found.policies, f"set-{number}") for number, (documents, _) in enumerate(candidates)]
    sets = prepare(renamed)
    with tempfile.TemporaryDirectory(prefix="shrink") as directory, Arena(sets, Path(directory)) as arena:
        for policies, (_, case) in zip(sets, candidates, strict=True):
            for each in compare.disagreements(policies, case, arena.judge(policies, case.request)):
                if _alike(each, found):
                    return each
    return None


def _alike(one: Disagreement, other: Disagreement) -> bool:
    return _kind(one) == _kind(other)


def _kind(found: Disagreement) -> tuple[str, int, str, int, str]:
    native, own = found.native, found.countersign
    return found.posture, native.status, native.body, own.status, own.body


def _renamed(documents: Sequence[Json], was: PolicySet, new: str) -> PolicySet:
    old = was.name
    copied = copy.deepcopy(list(documents))
    for document in copied:
        meta = document["metadata"]
        if meta["namespace"] == old:
            meta["namespace"] = new
        elif meta["namespace"] == MESH.root_namespace:
            meta["name"] = meta["name"].removesuffix(f"-{old}") + f"-{new}"
        labels = document["spec"].get("selector", {}).get("matchLabels", {})
        if labels.get("set") == old:
            labels["set"] = new
    return PolicySet(name=new, documents=copied, shared=was.shared)


def _candidates(found: Disagreement) -> Iterator[tuple[Sequence[Json], Case]]:
    documents, case = list(found.policies.documents), found.case
    for index in range(len(documents)):
        yield documents[:index] + documents[index + 1 :], case
    for index, document in enumerate(documents):
        for smaller in _without_one(document):
            yield [*documents[:index], smaller, *documents[index + 1 :]], case
    headers = case.request.headers
    for index in range(len(headers)):
        yield documents, replace(case, request=replace(case.request, headers=headers[:index] + headers[index + 1 :]))
    for name, plain in _PLAIN.items():
        if getattr(case.request, name) != plain:
            changed: dict[str, Any] = {name: plain}
            yield documents, replace(case, request=replace(case.request, **changed))


def _needed(value: Json) -> tuple[str, ...]:
    """What an object may not be without for the sake of what else it says."""
    if "provider" in value:
        return "action", "provider", "rules"
    if "portLevelMtls" in value:
        return ("selector",)
    return () if value.get("action", "ALLOW") == "ALLOW" else ("rules",)


def _without_one(value: Any) -> Iterator[Any]:
    """The value with one member or element left out, at any depth; empty lists and objects are invalid, or say more."""
    if isinstance(value, dict):
        for name, member in value.items():
            required = name in _KEPT or name in _needed(value)
            at_root = name == "selector" and "set" in member.get("matchLabels", {})
            if not required and not at_root and len(value) > (2 if "key" in value else 1):
                yield {other: kept for other, kept in value.items() if other != name}
            if name not in ("metadata", "selector"):
                yield from ({**value, name: smaller} for smaller in _without_one(member))
    elif isinstance(value, list) and len(value) > 1:
        for index in range(len(value)):
            yield value[:index] + value[index + 1 :]
    if isinstance(value, list):
        for index, element in enumerate(value):
            yield from ([*value[:index], smaller, *value[index + 1 :]] for smaller in _without_one(element))
