"""Which policies are for which workload, held against Istio's own selection: sidecars, gateways and waypoints."""

import json
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any, Final

from countersign.policy.parse import parse
from countersign.policy.scope import WorkloadPolicies, scope
from countersign.policy.workload import GATEWAY_LABEL, WAYPOINT_CLASS, ServiceRef, Workload

from tests.envoy.istio.oracle import Asked, Made, Oracle
from tests.envoy.judge.matchers import Json
from tests.envoy.judge.trust import Mesh

_MESH: Final = Mesh(trust_domain="cluster.local", root_namespace="istio-system")
_NAMESPACES: Final = ("apps", "edge", "istio-system")
_LABELS: Final[Sequence[dict[str, str]]] = (
    {},
    {"app": "web"},
    {"app": "web", "version": "v1"},
    {"app": "other"},
    {"app": ""},
)
_NAMES: Final = ("web", "other")
_CREATED: Final = (None, "2026-01-01T00:00:00Z", "2025-01-01T00:00:00Z")
_ACTIONS: Final = ("ALLOW", "DENY", "AUDIT")
_GATEWAY: Final = "gateway.networking.k8s.io"
_TARGETS: Final = (
    *({"group": _GATEWAY, "kind": "Gateway", "name": name} for name in _NAMES),
    *({"group": "", "kind": "Service", "name": name} for name in _NAMES),
    *({"group": "core", "kind": "Service", "name": name} for name in _NAMES),
    *({"group": "networking.istio.io", "kind": "ServiceEntry", "name": name} for name in _NAMES),
    {"group": _GATEWAY, "kind": "GatewayClass", "name": WAYPOINT_CLASS},
    {"group": _GATEWAY, "kind": "GatewayClass", "name": "istio"},
)
_POLICIES: Final = 12
_WORKLOADS: Final = 8


def compare(oracle: Oracle, seed: str, sets: int) -> Iterator[tuple[str, str]]:
    """For each workload its kind, and the difference; empty where there is none."""
    rng = Random(seed)  # noqa: S311 (repeatable, not secret)
    for _ in range(sets):
        documents = [_document(rng, number) for number in range(_POLICIES)]
        workloads = [_workload(rng) for _ in range(_WORKLOADS)]
        verdicts, found = oracle.make(documents, workloads, _MESH)
        assert all(each.accepted for each in verdicts), verdicts
        resources = parse({"policies": "\n---\n".join(map(json.dumps, documents))}, None, lambda _: "").resources
        for asked, made in zip(workloads, found, strict=True):
            ours = _ours(scope(resources, _as_workload(asked), _MESH.root_namespace))
            theirs = _theirs(made)
            text = "\n".join(map(json.dumps, documents))
            yield asked.kind, "" if ours == theirs else f"{text}\n{asked}\n  ours:    {ours}\n  Istio's: {theirs}"


def _document(rng: Random, number: int) -> Json:
    kind = rng.choice(("AuthorizationPolicy", "AuthorizationPolicy", "RequestAuthentication", "PeerAuthentication"))
    metadata: Json = {"name": f"policy-{number}", "namespace": rng.choice(_NAMESPACES)}
    if (created := rng.choice(_CREATED)) is not None or rng.random() < 0.5:
        metadata["creationTimestamp"] = created
    spec: Json = {}
    if kind != "PeerAuthentication" and rng.random() < 0.5:
        targets = [dict(each) for each in rng.sample(_TARGETS, rng.choice((1, 1, 2)))]
        spec = {"targetRef": targets[0]} if rng.random() < 0.3 else {"targetRefs": targets}
    elif labels := rng.choice(_LABELS):
        spec["selector"] = {"matchLabels": dict(labels)}
    if kind == "AuthorizationPolicy":
        spec |= {"action": rng.choice(_ACTIONS), "rules": [{}]}
    elif kind == "RequestAuthentication":
        issuer = rng.choice(("a", "b"))
        spec["jwtRules"] = [{"issuer": issuer, "jwksUri": "https://a/keys", "audiences": [metadata["name"]]}]
    else:
        spec["mtls"] = {"mode": rng.choice(("STRICT", "PERMISSIVE", "DISABLE", "UNSET"))}
    return {"apiVersion": "security.istio.io/v1", "kind": kind, "metadata": metadata, "spec": spec}


def _workload(rng: Random) -> Asked:
    kind = rng.choice(("sidecar", "sidecar", "router", "waypoint", "waypoint"))
    labels = dict(rng.choice(_LABELS))
    if kind == "waypoint" or (kind == "router" and rng.random() < 0.8):
        labels[GATEWAY_LABEL] = rng.choice(_NAMES)
    service: Json | None = None
    if kind == "waypoint" and rng.random() < 0.7:
        name, namespace = rng.choice(_NAMES), rng.choice(_NAMESPACES)
        service = {"hostname": f"{name}.{namespace}", "name": name, "namespace": namespace}
        service["external"] = rng.random() < 0.5
    return Asked(namespace=rng.choice(_NAMESPACES), labels=labels, kind=kind, service=service, ports=[80])


def _as_workload(asked: Asked) -> Workload:
    """The same in our words."""
    services: tuple[ServiceRef, ...] = ()
    if asked.service is not None:
        kind = "ServiceEntry" if asked.service["external"] else "Service"
        services = (ServiceRef(kind, asked.service["namespace"], asked.service["name"]),)
    gateway = asked.labels.get(GATEWAY_LABEL, "")
    labels = tuple(sorted(asked.labels.items()))
    return Workload(asked.namespace, labels, gateway, WAYPOINT_CLASS if asked.kind == "waypoint" else "", services)


def _ours(policies: WorkloadPolicies) -> Json:
    found = {
        action: sorted(f"ns[{each.meta.namespace}]-policy[{each.meta.name}]-rule[0]" for each in group)
        for action, group in (
            ("AUDIT", policies.http.audit),
            ("DENY", policies.http.deny),
            ("ALLOW", policies.http.allow),
        )
        if group
    }
    return {**found, "tokens": [rule.audiences[0] for rule in policies.jwt_rules], "mTLS": str(policies.mtls.mode)}


def _theirs(made: Made) -> Json:
    found: Json = {"tokens": [], "mTLS": made.mode}
    for each in made.http:
        config = each["typedConfig"]
        if "rules" in config and "providers" not in config:
            action = config["rules"].get("action", "ALLOW")
            found["AUDIT" if action == "LOG" else action] = sorted(config["rules"]["policies"])
        else:
            found["tokens"] = [_audience(config["providers"], index) for index in range(len(config["providers"]))]
    return found


def _audience(providers: Json, index: int) -> Any:
    """Providers are numbered in the order in which their tokens are tried."""
    (audience,) = providers[f"origins-{index}"]["audiences"]
    return audience
