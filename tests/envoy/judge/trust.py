"""The mesh that policies are written for, and the several names that it may have.

Source: Istio, "Trust Domain Migration"; `cluster.local` in a policy always means the local mesh.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from tests.envoy.judge.matchers import Json

_PARTS: Final = 5  # <trust domain>/ns/<namespace>/sa/<service account>
_LOCAL: Final = "cluster.local"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mesh:
    """MeshConfig, as far as policies depend on it."""

    trust_domain: str = ""
    aliases: tuple[str, ...] = ()
    root_namespace: str = ""

    @property
    def trust_domains(self) -> tuple[str, ...]:
        """Every name of the local mesh."""
        return ((self.trust_domain,) if self.trust_domain else ()) + self.aliases


def applying(documents: Iterable[Json], kind: str, namespace: str, labels: Json, mesh: Mesh) -> list[Json]:
    """The resources of a kind for one workload: its own namespace's first, then the root namespace's."""
    found = []
    for document in documents:
        meta = document["metadata"]
        selector = ((document.get("spec") or {}).get("selector") or {}).get("matchLabels") or {}
        if (
            document["kind"] == kind
            and meta["namespace"] in (namespace, mesh.root_namespace)
            and all(labels.get(name) == value for name, value in selector.items())
        ):
            found.append(document)
    return sorted(found, key=lambda each: (each["metadata"]["namespace"] != namespace, each["metadata"]["name"]))


def with_aliases(principals: Sequence[str], mesh: Mesh) -> list[str]:
    """``principals`` of the local mesh, once for each of its names."""
    return [written for principal in principals for written in _each_name(principal, mesh.trust_domains)]


def _each_name(principal: str, domains: Sequence[str]) -> Iterator[str]:
    parts = principal.split("/")
    named = parts[0]
    local = named == _LOCAL or any(_overlap(named, domain) for domain in domains)
    if not domains or len(parts) != _PARTS or named == "*" or not local:
        yield principal
        return
    written = []
    for domain in domains:
        kept = named.startswith("*") and domain.endswith(named[1:])
        written.append(principal if kept else "/".join([domain, *parts[1:]]))
    yield from dict.fromkeys(written)


def _overlap(one: str, other: str) -> bool:
    return one == other or _covers(one, other) or _covers(other, one)


def _covers(pattern: str, text: str) -> bool:
    if pattern.startswith("*") and text.endswith(pattern[1:]):
        return True
    return pattern.endswith("*") and text.startswith(pattern[:-1])


def with_trust_domains(values: Sequence[str], mesh: Mesh) -> list[str]:
    """``trustDomains``: a name of the local mesh stands for all of them."""
    known = mesh.trust_domains
    return list(dict.fromkeys(name for value in values for name in (known if value in known else (value,))))
