"""What PeerAuthentications make of a connection, and which of Envoy's arms Countersign must agree with.

In Istio they decide which connections there are at all. An ext_authz service sees only those that came about, so the
oracle is told in RBAC's terms: `STRICT` denies whom no certificate of the mesh has authenticated, and on a port with
`DISABLE` nobody has an identity. Input is plain YAML data; source: istio.io "PeerAuthentication".
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.envoy.judge import matchers
from tests.envoy.judge.identities import MALFORMED, NAMELESS
from tests.envoy.judge.matchers import Json
from tests.envoy.judge.trust import Mesh

NATIVE: Final = "native"  # the policies as Envoy's own filters
NOBODY: Final = "nobody"  # the same, for a peer without identity
REFUSED: Final = "refused"  # everything is denied


@dataclass(frozen=True, slots=True, kw_only=True)
class Modes:
    """The mode of a workload's connections, and of its ports where they have their own."""

    mode: str = "PERMISSIVE"
    ports: Mapping[int, str] = field(default_factory=dict)

    def on(self, port: int) -> str:
        """The mode of one port."""
        return self.ports.get(port, self.mode)


def compose(policies: Iterable[Json], namespace: str, labels: Mapping[str, str], mesh: Mesh) -> Modes:
    """Mesh, namespace, workload: the oldest of each level, and the narrower level that says a mode."""
    levels: dict[str, list[Json]] = {"mesh": [], "namespace": [], "workload": []}
    for policy in policies:
        selector = _labels(policy)
        if policy["metadata"]["namespace"] == mesh.root_namespace:
            if not selector:
                levels["mesh"].append(policy)
        elif policy["metadata"]["namespace"] == namespace and not selector:
            levels["namespace"].append(policy)
        elif policy["metadata"]["namespace"] == namespace and selector.items() <= labels.items():
            levels["workload"].append(policy)
    oldest = {name: min(level, key=_age) for name, level in levels.items() if level}
    mode = "PERMISSIVE"
    for policy in oldest.values():
        mode = _mode(_spec(policy).get("mtls"), mode)
    ports = _spec(oldest.get("workload", {})).get("portLevelMtls") or {}
    return Modes(mode=mode, ports={int(port): _mode(value, mode) for port, value in ports.items()})


def _spec(policy: Json) -> Json:
    return policy.get("spec") or {}


def _labels(policy: Json) -> Mapping[str, str]:
    return (_spec(policy).get("selector") or {}).get("matchLabels") or {}


def _age(policy: Json) -> tuple[str, str]:
    return str(policy["metadata"].get("creationTimestamp", "")), policy["metadata"]["name"]


def _mode(value: Json | None, inherited: str) -> str:
    mode = (value or {}).get("mode") or "UNSET"
    return inherited if mode == "UNSET" else str(mode)


def oracle(modes: Modes, caller: str, port: int) -> str:
    """The arm that says what becomes of a caller's requests.

    No filter of Envoy's refuses a certificate for its form, so for those the arm denies everything.
    """
    if modes.on(port) == "DISABLE":
        return NOBODY
    if caller in MALFORMED:
        return REFUSED
    return NOBODY if caller in NAMELESS else NATIVE


def rbac(modes: Modes, ports: Sequence[int], mesh: Mesh) -> Json:
    """The connections that there would not be, as RBAC: without a certificate of the mesh, or with a foreign one."""
    trusted = {"orIds": {"ids": [_begins(f"spiffe://{domain}/") for domain in mesh.trust_domains]}}
    strict = [port for port in ports if modes.on(port) == "STRICT"]
    any_tls = [port for port in ports if modes.on(port) != "DISABLE"]
    policies: Json = {}
    if strict:
        policies["strict"] = {"permissions": _on(strict), "principals": [{"notId": trusted}]}
    if any_tls:
        foreign = {"andIds": {"ids": [_begins("spiffe://"), {"notId": trusted}]}}
        policies["foreign"] = {"permissions": _on(any_tls), "principals": [foreign]}
    return {"rules": {"action": "DENY", "policies": policies}}


def _begins(prefix: str) -> Json:
    return matchers.peer({"prefix": prefix})


def _on(ports: Sequence[int]) -> list[Json]:
    return [{"destinationPort": port} for port in ports]
