"""What policies are analyzed against: the mesh around them, and which resources may meet at one workload."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import merge
from itertools import product
from typing import Generic, TypeVar

from countersign.core.posture import Posture
from countersign.policy.resources import Meta, TargetRef
from countersign.policy.scope import attaches
from countersign.policy.workload import SERVICE_KINDS, Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """``workloads`` are those that are known, by a name for people; empty if nobody said."""

    trust_domains: tuple[str, ...] = ("cluster.local",)
    root_namespace: str = "istio-system"
    posture: Posture = Posture.STRICT
    workloads: Mapping[str, Workload] = field(default_factory=dict)

    def may_meet(self, one: Meta, other: Meta) -> bool:
        """Whether there can be a workload that both apply to, as far as namespaces, selectors and targets tell."""
        if one.targets and other.targets:
            return _share_a_target(one, other)
        if _is_for_waypoints(one) or _is_for_waypoints(other):  # which take nothing without targets
            return False
        namespaces = {one.namespace, other.namespace}
        if len(namespaces) > 1 and self.root_namespace not in namespaces:
            return False
        return all(other.selector.get(name, value) == value for name, value in one.selector.items())

    def is_anywhere(self, meta: Meta) -> bool:
        """Whether it may meet resources of other namespaces than its own."""
        return meta.namespace == self.root_namespace or any(target.kind == "GatewayClass" for target in meta.targets)

    def selected(self, meta: Meta) -> list[str]:
        """The known workloads that a selector picks, as for PeerAuthentication."""
        return [
            name
            for name, workload in self.workloads.items()
            if meta.namespace in (workload.namespace, self.root_namespace)
            and meta.selector.items() <= dict(workload.labels).items()
        ]

    def attached(self, meta: Meta) -> list[str]:
        """The known workloads that policies and tokens apply to. Any service may be one that a waypoint serves."""
        by_service = any(target.kind in SERVICE_KINDS for target in meta.targets)
        return [
            name
            for name, workload in self.workloads.items()
            if (by_service and workload.is_waypoint) or attaches(meta, workload, self.root_namespace)
        ]


T = TypeVar("T")


class Neighbours(Generic[T]):
    """Things by the namespace of their ``meta``, so that nobody is held against the whole mesh."""

    def __init__(self, things: Sequence[T], meta: Callable[[T], Meta], surroundings: Surroundings) -> None:
        self._things = things
        self._meta = meta
        self._surroundings = surroundings
        self._anywhere: list[int] = []
        self._by_namespace: dict[str, list[int]] = defaultdict(list)
        for position, thing in enumerate(things):
            found = meta(thing)
            places = self._anywhere if surroundings.is_anywhere(found) else self._by_namespace[found.namespace]
            places.append(position)

    def of(self, meta: Meta, start: int = 0) -> Iterator[T]:
        """Those that may meet a resource, in order; from a position on."""
        positions: Iterable[int] = range(start, len(self._things))
        if not self._surroundings.is_anywhere(meta):
            own = self._by_namespace.get(meta.namespace, [])
            positions = merge(*(found[bisect_left(found, start) :] for found in (own, self._anywhere)))
        for position in positions:
            thing = self._things[position]
            if self._surroundings.may_meet(meta, self._meta(thing)):
                yield thing


def _is_for_waypoints(meta: Meta) -> bool:
    return bool(meta.targets) and all(target.kind != "Gateway" for target in meta.targets)


def _share_a_target(one: Meta, other: Meta) -> bool:
    """Whether there is a gateway, or a service and its gateway, that one and the other name."""
    if any(target.kind == "GatewayClass" for target in (*one.targets, *other.targets)):
        return True
    pairs = product(one.targets, other.targets)
    return one.namespace == other.namespace and any(_meet(ours, theirs) for ours, theirs in pairs)


def _meet(one: TargetRef, other: TargetRef) -> bool:
    kinds = {one.kind, other.kind}
    return one == other or ("Gateway" in kinds and not kinds.isdisjoint(SERVICE_KINDS))
