"""What checks decide by: policies and keys, put in force by one assignment each."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain

from countersign.core.jwt_rule import FetchedKeys, InlineKeys, KeySource
from countersign.policy.resources import Resources
from countersign.policy.scope import PolicySet
from countersign.policy.workload import Workload, WorkloadError, workload_of
from countersign.settings import Settings
from countersign.snapshot import Mesh, Snapshot
from countersign.tokens.cache import TokenCache
from countersign.tokens.keys import KeySet


@dataclass(frozen=True, slots=True, kw_only=True)
class Policies:
    """What was loaded at once: the resources, the key sets written into them, and the how-manieth it is."""

    resources: Resources
    inline: Mapping[KeySource, KeySet]
    generation: int

    def sources(self) -> list[FetchedKeys]:
        """The key sets that are to be fetched for them."""
        return [
            rule.keys
            for resource in self.resources.request_authentications
            for rule in resource.rules
            if not isinstance(rule.keys, InlineKeys)
        ]


class InForce:
    """Holds the snapshot. One event loop changes it; any thread may read it."""

    def __init__(self, settings: Settings) -> None:
        self._mesh = settings.mesh
        tokens = TokenCache(settings.token_cache) if settings.token_cache else None
        self._snapshot = Snapshot(mesh=settings.mesh, policies=None, keys={}, tokens=tokens)
        self._inline: Mapping[KeySource, KeySet] = {}
        self._fetched: Mapping[FetchedKeys, KeySet] = {}

    def current(self) -> Snapshot:
        """What a check decides by now."""
        return self._snapshot

    @property
    def fetched(self) -> Mapping[FetchedKeys, KeySet]:
        """The fetched keys that are in force."""
        return self._fetched

    async def put(self, policies: Policies) -> None:
        """Put policies in force, prepared for the settings' workload and those that the previous ones were asked for.

        So no request to them waits for the new set to be compiled.
        """
        previous, mesh = self._snapshot.policies, self._mesh
        prepared = PolicySet(policies.resources, mesh.root_namespace, policies.generation)
        asked = () if previous is None else previous.workloads()
        workloads = dict.fromkeys((*_own_workload(mesh), *asked))
        await asyncio.to_thread(prepared.prepare, workloads, mesh.posture, mesh.trust_domains)
        self._inline = policies.inline
        self._snapshot = replace(self._snapshot, policies=prepared, keys=_merged(self._inline, self._fetched))

    def take_keys(self, keys: Mapping[FetchedKeys, KeySet]) -> None:
        """Put fetched keys in force, beside those that are written into the policies."""
        self._fetched = keys
        self._snapshot = replace(self._snapshot, keys=_merged(self._inline, keys))


def _own_workload(mesh: Mesh) -> tuple[Workload, ...]:
    """The workload of requests that do not name one; none if the settings do not say it, or not so that it is one."""
    with suppress(WorkloadError):
        return (workload_of(mesh.namespace, mesh.labels),) if mesh.namespace else ()
    return ()  # each request to it is denied, and says why


def _merged(inline: Mapping[KeySource, KeySet], fetched: Mapping[FetchedKeys, KeySet]) -> Mapping[KeySource, KeySet]:
    return dict(chain[tuple[KeySource, KeySet]](inline.items(), fetched.items()))
