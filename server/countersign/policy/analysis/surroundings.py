"""What policies are analyzed against: the mesh around them, and which resources may meet at one workload."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from countersign.core.posture import Posture
from countersign.policy.resources import Meta
from countersign.policy.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """``workloads`` are those that are known, by a name for people; empty if nobody said."""

    trust_domains: tuple[str, ...] = ("cluster.local",)
    root_namespace: str = "istio-system"
    posture: Posture = Posture.STRICT
    workloads: Mapping[str, Workload] = field(default_factory=dict)

    def may_meet(self, one: Meta, other: Meta) -> bool:
        """Whether there can be a workload that both apply to, as far as namespaces and selectors tell."""
        namespaces = {one.namespace, other.namespace}
        if len(namespaces) > 1 and self.root_namespace not in namespaces:
            return False
        return all(other.selector.get(name, value) == value for name, value in one.selector.items())

    def selected(self, meta: Meta) -> list[str]:
        """The known workloads that a resource without targets applies to."""
        return [
            name
            for name, workload in self.workloads.items()
            if meta.namespace in (workload.namespace, self.root_namespace)
            and meta.selector.items() <= dict(workload.labels).items()
        ]
