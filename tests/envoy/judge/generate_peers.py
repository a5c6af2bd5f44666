"""Random PeerAuthentications: of the mesh, of namespaces, of workloads and their ports, and several at one level."""

from collections.abc import Mapping, Sequence
from random import Random
from typing import Final

from tests.envoy.judge.matchers import Json
from tests.envoy.judge.policy_set import MESH, PORTS

_MODES: Final = ("STRICT", "STRICT", "PERMISSIVE", "DISABLE", "UNSET")
_OF_MESH: Final = ("STRICT", "STRICT", "PERMISSIVE", "PERMISSIVE", "UNSET", "UNSET", "DISABLE")
_CREATED: Final = ("2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z", "2025-01-01T00:00:00Z")


def for_mesh(rng: Random) -> list[Json]:
    """What holds for every workload of the arena, as far as its own say nothing."""
    found = [_policy(rng, "mesh", MESH.root_namespace, {}, _OF_MESH) for _ in range(rng.choice((0, 1, 2)))]
    if rng.random() < 0.5:  # Istio ignores it
        found.append(_policy(rng, "selecting", MESH.root_namespace, {"app": "web"}))
    return [each | {"metadata": each["metadata"] | {"name": f"mesh-{n}"}} for n, each in enumerate(found)]


def for_workload(rng: Random, namespace: str) -> list[Json]:
    """What holds for the workload of a namespace: for two of five nothing."""
    found = []
    for name, labels in (("all", {}), ("all-too", {}), ("web", {"app": "web"}), ("other", {"app": "other"})):
        if rng.random() < 0.15:
            found.append(_policy(rng, name, namespace, labels))
    return found


def _policy(rng: Random, name: str, namespace: str, labels: Mapping[str, str], modes: Sequence[str] = _MODES) -> Json:
    spec: Json = {"selector": {"matchLabels": dict(labels)}} if labels else {}
    if rng.random() < 0.85:
        spec["mtls"] = {"mode": rng.choice(modes)}
    if labels and rng.random() < 0.6:
        ports = rng.sample(sorted({*PORTS.values(), 80}), rng.choice((1, 2)))
        spec["portLevelMtls"] = {port: rng.choice(({"mode": rng.choice(_MODES)}, {})) for port in ports}
    created = {"creationTimestamp": rng.choice(_CREATED)} if rng.random() < 0.5 else {}
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": {"name": name, "namespace": namespace, **created},
        "spec": spec,
    }
