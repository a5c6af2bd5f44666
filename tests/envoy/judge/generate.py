"""Random policy sets: every field that Countersign takes, alone and together, in the forms that Istio accepts."""

from collections.abc import Mapping, Sequence
from random import Random
from typing import Final

from tests.envoy.judge import generate_peers
from tests.envoy.judge import vocabulary as words
from tests.envoy.judge.jwt_rules import users
from tests.envoy.judge.matchers import Json
from tests.envoy.judge.policy_set import MESH, REFUSING, PolicySet

_BY_NAMESPACE: Final = frozenset({"principals", "namespaces"})


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
    actions = () if only_users else rng.choice(_ACTIONS)
    for number, action in enumerate(actions):
        spec: Json = {"action": action} if action != "ALLOW" or rng.random() < 0.3 else {}
        if action != "ALLOW" or rng.random() < 0.97:
            spec["rules"] = [rule(rng, custom=action == "CUSTOM") for _ in range(rng.choice((1, 1, 2, 3)))]
        if action == "CUSTOM":
            spec["provider"] = {"name": rng.choice((REFUSING, REFUSING, "nobody"))}
        documents.append(_resource(rng, name, "AuthorizationPolicy", f"rules-{number}", spec))
        if action in ("ALLOW", "DENY") and rng.random() < 0.07:
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
    names = list(table)
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
    if name == "paths":
        choice += words.TEMPLATES
    return rng.sample(choice, rng.choice((1, 1, 2, 3)))


def _condition(rng: Random, *, custom: bool) -> Json:
    keys = list(words.CONDITIONS)
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
