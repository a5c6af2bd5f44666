"""Which policies apply to which workload.

A resource applies if it is in the root namespace or in the workload's, and its selector's labels are the workload's.
One with targets applies to the gateways that it names, one for a service to the waypoint that serves it, and a waypoint
takes no other. AuthorizationPolicies and RequestAuthentications add up; of PeerAuthentications one a level counts.
Source: Istio pilot/pkg/model/policyattachment.go, pilot/pkg/security/authn ComposePeerAuthentication.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from countersign.core.jwt_rule import JwtRule
from countersign.core.posture import Posture
from countersign.policy.actions import PoliciesByAction, by_action, on_tcp
from countersign.policy.compile import CompiledPolicies
from countersign.policy.resources import (
    Meta,
    MtlsMode,
    PeerAuthentication,
    Resources,
    TargetRef,
)
from countersign.policy.terms.http import headers_read
from countersign.policy.workload import WAYPOINT_CLASS, Labels, ServiceRef, Workload

_MAX_REMEMBERED: Final = 1024  # workloads one process serves; a request may name any, so memory must be bounded


@dataclass(frozen=True, slots=True, kw_only=True)
class PortMode:
    """The mTLS mode of a port and the ``file:line`` that set it; empty where Istio's default stands."""

    mode: MtlsMode
    policy: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadPolicies:
    """Everything that applies to one workload. ``jwt_rules`` are sorted by issuer, as Envoy tries them."""

    mtls: PortMode
    mtls_by_port: Mapping[int, PortMode]
    jwt_rules: tuple[JwtRule, ...]
    http: PoliciesByAction
    tcp: PoliciesByAction
    engines: dict[tuple[bool, Posture, tuple[str, ...]], CompiledPolicies] = field(
        default_factory=dict, compare=False, repr=False
    )

    def engine(self, *, tcp: bool, posture: Posture, trust_domains: tuple[str, ...]) -> CompiledPolicies:
        """The policies, compiled when they are first asked for."""
        key = (tcp, posture, trust_domains)
        found = self.engines.get(key)
        if found is None:
            policies = self.tcp if tcp else self.http
            found = self.engines[key] = CompiledPolicies(policies, posture, trust_domains)
        return found

    def mtls_on(self, port: int) -> PortMode:
        """The mode of a (destination) port."""
        return self.mtls_by_port.get(port, self.mtls)


class PolicySet:
    """One generation of policies: all that was loaded at once, scoped to a workload when it is first asked for."""

    def __init__(self, resources: Resources, root_namespace: str, generation: int) -> None:
        self.resources = resources
        self.generation = generation
        self._root_namespace = root_namespace
        self._scoped: dict[Workload, WorkloadPolicies] = {}

    def for_workload(self, workload: Workload) -> WorkloadPolicies:
        """What applies to a workload. Remembered: scoping is the same for every request to it."""
        found = self._scoped.get(workload)
        if found is None:
            if len(self._scoped) >= _MAX_REMEMBERED:
                self._scoped.clear()
            found = self._scoped[workload] = scope(self.resources, workload, self._root_namespace)
        return found

    @cached_property
    def headers_read(self) -> frozenset[str]:
        """The names of the headers at which authorization policies look, whatever the workload."""
        return frozenset(
            name
            for policy in self.resources.authorization_policies
            for rule in policy.rules
            for clauses in (rule.sources, rule.operations, rule.conditions)
            for clause in clauses
            for term in clause
            for name in headers_read(term)
        )

    def workloads(self) -> tuple[Workload, ...]:
        """The workloads that were asked for so far."""
        return tuple(self._scoped)

    def prepare(self, workloads: Iterable[Workload], posture: Posture, trust_domains: tuple[str, ...]) -> None:
        """Do beforehand what the first request to each workload would have to wait for."""
        _ = self.headers_read
        for workload in workloads:
            for tcp in (False, True):
                self.for_workload(workload).engine(tcp=tcp, posture=posture, trust_domains=trust_domains)


def scope(resources: Resources, workload: Workload, root_namespace: str) -> WorkloadPolicies:
    """Pick what applies to a workload."""

    def applies(meta: Meta) -> bool:
        return attaches(meta, workload, root_namespace)

    def order(meta: Meta) -> tuple[bool, bool, str, str]:
        """The workload's namespace, the root namespace, that of the service which a waypoint serves."""
        own = meta.namespace == workload.namespace
        return not own, meta.namespace != root_namespace, meta.created, meta.name

    requests = [resource for resource in resources.request_authentications if applies(resource.meta)]
    requests.sort(key=lambda resource: order(resource.meta))
    jwt_rules = sorted((rule for resource in requests for rule in resource.rules), key=lambda rule: rule.issuer)
    policies = [policy for policy in resources.authorization_policies if applies(policy.meta)]
    mtls, by_port = _mtls(resources.peer_authentications, workload, root_namespace)
    return WorkloadPolicies(
        mtls=mtls,
        mtls_by_port=by_port,
        jwt_rules=tuple(jwt_rules),
        http=by_action(policies),
        tcp=by_action([on_tcp(policy) for policy in policies]),
    )


def attaches(meta: Meta, workload: Workload, root_namespace: str) -> bool:
    """Whether an AuthorizationPolicy or RequestAuthentication applies to a workload (Istio's ShouldAttachPolicy)."""
    if meta.targets:
        return any(_is_target(target, meta.namespace, workload, root_namespace) for target in meta.targets)
    if workload.is_waypoint:
        return False
    return meta.namespace in (workload.namespace, root_namespace) and _selects(meta, workload.labels)


def _is_target(target: TargetRef, namespace: str, workload: Workload, root_namespace: str) -> bool:
    """Whether a target of a policy in ``namespace`` is the workload, its class, or a service that is asked for."""
    match target.kind:
        case "Gateway":
            return bool(workload.gateway) and (namespace, target.name) == (workload.namespace, workload.gateway)
        case "GatewayClass":
            return workload.is_waypoint and target.name == WAYPOINT_CLASS and namespace == root_namespace
        case kind:
            return ServiceRef(kind, namespace, target.name) in workload.services


def _selects(meta: Meta, labels: Labels) -> bool:
    return all(label in labels for label in meta.selector.items())


def _mtls(
    resources: tuple[PeerAuthentication, ...], workload: Workload, root_namespace: str
) -> tuple[PortMode, Mapping[int, PortMode]]:
    """Mesh, namespace, workload: each level that says a mode overrides; a port of the workload's policy wins."""
    everyone = [resource for resource in resources if not resource.meta.selector]
    mesh = _oldest([resource for resource in everyone if resource.meta.namespace == root_namespace])
    own = [resource for resource in resources if resource.meta.namespace == workload.namespace]
    namespace = _oldest([resource for resource in own if not resource.meta.selector])
    selected: PeerAuthentication | None = None
    if workload.namespace != root_namespace:  # Istio ignores a selector in the root namespace
        selected = _oldest(
            [resource for resource in own if resource.meta.selector and _selects(resource.meta, workload.labels)]
        )
    mode = PortMode(mode=MtlsMode.PERMISSIVE)
    for resource in (mesh, namespace, selected):
        if resource is not None and resource.mode is not MtlsMode.UNSET:
            mode = _port_mode(resource, resource.mode)
    by_port: dict[int, PortMode] = {}
    if selected is not None:
        for port, port_mode in selected.ports.items():
            by_port[port] = mode if port_mode is MtlsMode.UNSET else _port_mode(selected, port_mode)
    return mode, by_port


def _port_mode(resource: PeerAuthentication, mode: MtlsMode) -> PortMode:
    meta = resource.meta
    return PortMode(mode=mode, policy=f"{meta.namespace}/{meta.name}", source=meta.source)


def _oldest(resources: list[PeerAuthentication]) -> PeerAuthentication | None:
    key = min(((r.meta.created, r.meta.name, r.meta.namespace, i) for i, r in enumerate(resources)), default=None)
    return None if key is None else resources[key[3]]
