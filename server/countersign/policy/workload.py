"""Which workload a request is for.

Source: Istio's workload selectors; Envoy's ``context_extensions`` and ``bootstrap_metadata_labels_key``.
"""

from dataclasses import dataclass

from countersign.core.facts import RequestFacts
from countersign.core.spiffe import SpiffeId, SpiffeIdError

Labels = tuple[tuple[str, str], ...]


class WorkloadError(ValueError):
    """The request does not say which workload it is for, or not so that it can be read."""


@dataclass(frozen=True, slots=True)
class Workload:
    """Whose policies are asked for. ``labels`` are sorted pairs, so that equal workloads are equal keys."""

    namespace: str
    labels: Labels
    gateway: str = ""  # the name of the Gateway it serves, if it is one


def find_workload(facts: RequestFacts, namespace: str, labels: Labels) -> Workload:
    """The first that says it: the route's ``context_extensions``, Envoy's node and certificate, the given defaults.

    Raise `WorkloadError` if nobody says the namespace.
    """
    extensions = facts.context_extensions
    own = extensions.get("workload.namespace") or _own_namespace(facts) or namespace
    if not own:
        raise WorkloadError("neither Envoy nor --namespace says which workload this is")
    if "workload.labels" in extensions:
        labels = _labels(extensions["workload.labels"])
    elif facts.destination.labels:
        labels = tuple(sorted(facts.destination.labels.items()))
    return Workload(own, labels, extensions.get("workload.gateway", ""))


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
