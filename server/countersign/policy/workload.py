"""Which workload a request is for, and what Istio attaches policies to beside its labels: gateway, class, services.

Source: Istio's workload selectors and pilot/pkg/model/policyattachment.go; the labels of the Gateway API (GEP-1762);
Envoy's ``context_extensions`` and ``bootstrap_metadata_labels_key``.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from countersign.core.facts import RequestFacts
from countersign.core.spiffe import SpiffeId, SpiffeIdError

Labels = tuple[tuple[str, str], ...]

GATEWAY_LABEL: Final = "gateway.networking.k8s.io/gateway-name"
GATEWAY_CLASS_LABEL: Final = "gateway.networking.k8s.io/gateway-class-name"
WAYPOINT_CLASS: Final = "istio-waypoint"
SERVICE_KINDS: Final = frozenset({"Service", "ServiceEntry"})

_PREFIX: Final = "workload."
_KEYS: Final = frozenset({"namespace", "labels", "service_account", "gateway", "gateway_class", "services"})
_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")  # RFC 1123 subdomain, as Kubernetes has it


class WorkloadError(ValueError):
    """The request does not say which workload it is for, or not so that it can be read."""


class ServiceRef(NamedTuple):
    """A Service or ServiceEntry that a request targets; ``kind`` is one of `SERVICE_KINDS`."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Workload:
    """Whose policies are asked for. ``labels`` are sorted pairs, so that equal workloads are equal keys.

    ``gateway`` names the Gateway that it serves, if it is one, ``gateway_class`` that Gateway's class. ``services``
    are those that the request targets, sorted: only a waypoint serves several, and knows which.
    """

    namespace: str
    labels: Labels
    gateway: str = ""
    gateway_class: str = ""
    services: tuple[ServiceRef, ...] = ()

    @property
    def is_waypoint(self) -> bool:
        """Whether it is the gateway of other workloads in an ambient mesh."""
        return self.gateway_class == WAYPOINT_CLASS


def workload_of(namespace: str, labels: Labels) -> Workload:
    """The workload that a namespace and labels make, as Istio reads them. Raise `WorkloadError`."""
    return _workload(namespace, labels, {})


def find_workload(facts: RequestFacts, namespace: str, labels: Labels) -> Workload:
    """The first that says it: the route's ``context_extensions``, Envoy's node and certificate, the given defaults.

    Raise `WorkloadError` if nobody says the namespace, or if what the route says cannot be read: a policy must not
    go astray for a slip of the pen.
    """
    extensions = facts.context_extensions
    own = extensions.get("workload.namespace") or _own_namespace(facts) or namespace
    if not own:
        raise WorkloadError("neither Envoy nor --namespace says which workload this is")
    refuse_unknown(extensions)
    if "workload.labels" in extensions:
        labels = _labels(extensions["workload.labels"])
    elif facts.destination.labels:
        labels = tuple(sorted(facts.destination.labels.items()))
    return _workload(own, labels, extensions)


def refuse_unreadable(extensions: Mapping[str, str]) -> None:
    """Raise `WorkloadError` for ``context_extensions`` that no request could be placed by, whatever else it says."""
    refuse_unknown(extensions)
    for key, read in (
        ("namespace", _name),
        ("gateway", _name),
        ("gateway_class", _name),
        ("labels", lambda _, text: _labels(text)),
        ("services", lambda _, text: _services(text)),
    ):
        if _PREFIX + key in extensions:
            read(_PREFIX + key, extensions[_PREFIX + key])


def refuse_unknown(extensions: Iterable[str]) -> None:
    """Raise `WorkloadError` for names that nothing is known by, whatever their values."""
    for key in extensions:
        if key.startswith(_PREFIX) and key[len(_PREFIX) :] not in _KEYS:
            raise WorkloadError(f"`{key}` says nothing about a workload; known are {', '.join(sorted(_KEYS))}")


def _workload(namespace: str, labels: Labels, extensions: Mapping[str, str]) -> Workload:
    gateway = gateway_class = ""
    for name, value in labels:
        if name == GATEWAY_LABEL:
            gateway = value
        elif name == GATEWAY_CLASS_LABEL:
            gateway_class = value
    if "workload.gateway" in extensions:
        gateway = _name("workload.gateway", extensions["workload.gateway"])
    if "workload.gateway_class" in extensions:
        gateway_class = _name("workload.gateway_class", extensions["workload.gateway_class"])
    services: tuple[ServiceRef, ...] = ()
    if "workload.services" in extensions:
        services = _services(extensions["workload.services"])
        if gateway_class != WAYPOINT_CLASS:
            raise WorkloadError(f"`workload.services` is for waypoints: `workload.gateway_class` is {WAYPOINT_CLASS}")
    if gateway_class == WAYPOINT_CLASS and not gateway:
        raise WorkloadError(f"a waypoint without a name: neither `workload.gateway` nor the label {GATEWAY_LABEL}")
    return Workload(namespace, labels, gateway, gateway_class, services)


def _own_namespace(facts: RequestFacts) -> str | None:
    """The namespace in the certificate that Envoy itself presents."""
    try:
        return SpiffeId.parse(facts.destination.principal).namespace
    except SpiffeIdError:
        return None


def _labels(text: str) -> Labels:
    labels: dict[str, str] = {}
    for item in text.split(",") if text else ():
        name, equals, value = item.partition("=")
        if not equals or not name or name in labels:
            raise WorkloadError("`workload.labels` is not of the form k=v,k=v")
        labels[name] = value
    return tuple(sorted(labels.items()))


def _name(key: str, text: str) -> str:
    if _NAME.fullmatch(text) is None:
        raise WorkloadError(f"`{key}` is no name of Kubernetes: lower-case letters, digits, `-` and `.`")
    return text


def _services(text: str) -> tuple[ServiceRef, ...]:
    """``Service/ns/name`` and ``ServiceEntry/ns/name``, with commas between and nothing else."""
    services: set[ServiceRef] = set()
    for item in text.split(","):
        kind, *names = item.split("/")
        sound = kind in SERVICE_KINDS and len(names) == 2 and all(map(_NAME.fullmatch, names))  # noqa: PLR2004
        found = ServiceRef(kind, *names) if sound else None
        if found is None or found in services:
            raise WorkloadError("`workload.services` is not of the form Service/NS/NAME,ServiceEntry/NS/NAME")
        services.add(found)
    return tuple(sorted(services))
