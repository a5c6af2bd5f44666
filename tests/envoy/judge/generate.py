"""Random policy sets: every field that Countersign takes, alone and together, in the forms that Istio accepts."""

from collections.abc import Mapping, Sequence
from functools import cache
from random import Random
from typing import Final

import yaml
from countersign.policy.parse import parse
from countersign.policy.problems import Code, PolicyError

from tests.envoy.judge import generate_peers
from tests.envoy.judge import vocabulary as words
from tests.envoy.judge.jwt_rules import users
from tests.envoy.judge.matchers import Json
from tests.envoy.judge.policy_set import MESH, REFUSING, PolicySet

_BY_NAMESPACE: Final = frozenset({"principals", "namespaces"})
_NOT_YET: Final = "not supported yet"


def policy_set(rng: Random, name: str, shared: Sequence[Json] = ()) -> PolicySet:
    """The policies for one workload; about a fifth of them select another one, or live in the root namespace.

    ``shared`` are policies of the root namespace that are not only for this workload.
    """
    only_users = rng.random() < 0.25  # nobody denies what their tokens allow
    documents = generate_peers.for_workload(rng, name)
    documents += [
        _resource(rng, name, "RequestAuthentication", f"users-{number}", users(rng))
        for number in range(rng.choice((1, 1, 2) if only_users else (0, 1, 1, 1, 2)))
    ]
    actions = [each for each in (() if only_users else rng.choice(_ACTIONS)) if each != "AUDIT" or supports_audit()]
    for number, action in enumerate(actions):
        spec: Json = {"action": action} if action != "ALLOW" or rng.random() < 0.3 else {}
        if action != "ALLOW" or rng.random() < 0.97:
            spec["rules"] = [rule(rng, custom=action == "CUSTOM") for _ in range(rng.choice((1, 1, 2, 3)))]
        if action == "CUSTOM":
            spec["provider"] = {"name": rng.choice((REFUSING, REFUSING, "nobody"))}
        documents.append(_resource(rng, name, "AuthorizationPolicy", f"rules-{number}", spec))
        if action in ("ALLOW", "DENY") and rng.random() < 0.07 and supports_dry_run():
            documents[-1]["metadata"]["annotations"] = {"istio.io/dry-run": rng.choice(("true", "false", "T", "0"))}
    return PolicySet(name=name, documents=documents, shared=shared)


_ACTIONS: Final[Sequence[tuple[str, ...]]] = (
    (), ("ALLOW",), ("ALLOW",), ("ALLOW", "ALLOW"), ("DENY",), ("DENY",), ("DENY", "DENY"), ("DENY", "ALLOW"),
    ("DENY", "ALLOW"),
    ("ALLOW", "ALLOW", "ALLOW"), ("AUDIT", "DENY", "ALLOW"), ("CUSTOM",), ("CUSTOM", "CUSTOM", "ALLOW"),
)  # fmt: skip


def _resource(rng: Random, name: str, kind: str, own_name: str, spec: Json) -> Json:
    at_root = rng.random() < 0.12
    selectors: Sequence[Mapping[str, str]] = ({}, {}, {}, {"app": "web"}, {"app": "other"}, {"app": "web", "set": name})
    labels = {"set": name} if at_root else dict(rng.choice(selectors))
    return {
        "apiVersion": f"security.istio.io/{rng.choice(('v1', 'v1beta1'))}",
        "kind": kind,
        "metadata": {
            "name": f"{own_name}-{name}" if at_root else own_name,
            "namespace": MESH.root_namespace if at_root else name,
        },
        "spec": ({"selector": {"matchLabels": labels}} if labels else {}) | spec,
    }


def rule(rng: Random, *, custom: bool = False) -> Json:
    """One rule of an AuthorizationPolicy; often with one part only, or nothing would ever match.

    A ``custom`` one may not look at identities, for Istio asks the provider before it knows any.
    """
    found: Json = {}
    source = {name: words.SOURCE[name] for name in ("ipBlocks", "remoteIpBlocks")} if custom else words.SOURCE
    if rng.random() < 0.5:
        found["from"] = [{"source": _fields(rng, source)} for _ in range(rng.choice((1, 1, 2)))]
    if rng.random() < 0.5:
        found["to"] = [{"operation": _fields(rng, words.OPERATION)} for _ in range(rng.choice((1, 1, 2)))]
    if rng.random() < 0.4:
        found["when"] = [_condition(rng, custom=custom) for _ in range(rng.choice((1, 1, 2)))]
    return found


def _fields(rng: Random, table: Mapping[str, words.Words]) -> Json:
    names = [name for name in table if is_supported(name)]
    chosen = rng.sample(names, rng.choice((1, 1, 1, 2)))
    if "serviceAccounts" in chosen:  # Istio refuses the combination
        chosen = [name for name in chosen if name not in _BY_NAMESPACE]
    found: Json = {}
    for name in chosen:
        form = rng.random()
        if form < 0.75:
            found[name] = _values(rng, name, table[name])
        if form >= 0.65:
            found[f"not{name[0].upper()}{name[1:]}"] = _values(rng, name, table[name])
    return found


def _values(rng: Random, name: str, choice: words.Words) -> list[str]:
    if name == "paths" and supports_templates():
        choice += words.TEMPLATES
    return rng.sample(choice, rng.choice((1, 1, 2, 3)))


def _condition(rng: Random, *, custom: bool) -> Json:
    keys = [key for key in words.CONDITIONS if is_supported(key)]
    if custom:
        keys = [key for key in keys if not key.startswith(("request.auth.", *words.AUTHENTICATED))]
    kinds = sorted({key.partition("[")[0] for key in keys})
    kind = rng.choice([*kinds, *[kind for kind in kinds if kind.startswith("request.")] * 2])
    key = rng.choice([each for each in keys if each.partition("[")[0] == kind])
    form = rng.random()
    found: Json = {"key": key}
    if form < 0.75:
        found["values"] = _values(rng, key, words.CONDITIONS[key])
    if form >= 0.65:
        found["notValues"] = _values(rng, key, words.CONDITIONS[key])
    return found


@cache
def is_supported(name: str) -> bool:
    """Whether Countersign takes a field of a source or operation, or a key of a condition."""
    if name in words.SOURCE:
        return _takes({"from": [{"source": {name: [words.SOURCE[name][0]]}}]})
    if name in words.OPERATION:
        return _takes({"to": [{"operation": {name: [words.OPERATION[name][0]]}}]})
    return _takes({"when": [{"key": name, "values": [words.CONDITIONS[name][0]]}]})


@cache
def supports_templates() -> bool:
    """Whether Countersign takes path templates."""
    return _takes({"to": [{"operation": {"paths": [words.TEMPLATES[0]]}}]})


@cache
def supports_dry_run() -> bool:
    """Whether Countersign takes the annotation."""
    return _takes({}, annotations={"istio.io/dry-run": "true"})


@cache
def supports_audit() -> bool:
    """Whether Countersign takes the action."""
    return _takes({}, action="AUDIT")


def _takes(one_rule: Json, *, action: str = "ALLOW", annotations: Mapping[str, str] | None = None) -> bool:
    """Whether it parses. Only "not supported yet" leaves a field out: any other refusal is a finding of the judge's."""
    document = {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "probe", "namespace": "probe", "annotations": dict(annotations or {})},
        "spec": {"action": action, "rules": [one_rule]},
    }
    try:
        parse({"probe.yaml": yaml.safe_dump(document)}, None, lambda _: "")
    except PolicyError as error:
        return not all(each.code is Code.UNSUPPORTED or _NOT_YET in each.message for each in error.problems)
    return True
