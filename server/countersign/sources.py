"""Where policies and keys come from: the files, watched, and the issuers. Each is read, checked and logged once."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from countersign.core.jwt_rule import FetchedKeys
from countersign.edge.collector import undisturbed
from countersign.edge.keys.bind import bind
from countersign.edge.keys.fetcher import KeyFetcher, KeySets
from countersign.edge.keys.saved import prepare
from countersign.edge.policy_files import changes, digest, parse_files, read_files
from countersign.in_force import Policies
from countersign.policy.analysis.analyze import Written, analyze
from countersign.policy.analysis.surroundings import Surroundings
from countersign.policy.problems import PolicyError, Problem
from countersign.policy.resources import Resources
from countersign.settings import Settings

_log: Final = logging.getLogger(__name__)

Put = Callable[[Policies], Awaitable[None]]
TakeKeys = Callable[[KeySets], None]


class Sources:
    """Gives policies to ``put`` and keys to ``take_keys``, the first time in `load` and then while it runs.

    ``on_news`` is called whenever `not_ready` may have changed.
    """

    def __init__(self, settings: Settings, put: Put, take_keys: TakeKeys, on_news: Callable[[], None]) -> None:
        self._settings = settings
        self._put = put
        self._on_news = on_news
        self._fetcher = KeyFetcher(take_keys, settings.keys, on_landing=on_news)
        self._digest = ""
        self._generation = 0
        self._has_been_ready = False

    async def load(self) -> None:
        """Read the policies for the first time. Raise `PolicyError` or OSError where that is not possible."""
        if self._settings.keys.cache_directory is not None:
            prepare(self._settings.keys.cache_directory)
        await self._load()

    def start(self, stop: asyncio.Event) -> list[asyncio.Task[None]]:
        """Watch and fetch from now on. The tasks end when they are cancelled, not by themselves before ``stop``."""
        return [
            asyncio.create_task(self._fetcher.run(), name="keys"),
            asyncio.create_task(self._watch(stop), name="policies"),
        ]

    def refresh(self, source: FetchedKeys) -> asyncio.Future[None] | None:
        """Ask for a key that is missed; see `KeyFetcher.refresh`."""
        return self._fetcher.refresh(source)

    def not_ready(self) -> str:
        """What checks would have to do without; empty if they have everything.

        Keys are waited for once, at the start: later, a new issuer must not take the others' traffic away.
        """
        if not self._generation:
            return "no policy has been loaded"
        untried = () if self._has_been_ready else self._fetcher.untried()
        if untried:
            return f"fetching keys from {', '.join(untried)}"
        self._has_been_ready = True
        return ""

    async def _watch(self, stop: asyncio.Event) -> None:
        said = ""
        async for _ in changes(self._settings.policies, stop):
            try:
                await self._load()
            except PolicyError as error:
                if str(error) != said:  # the files are looked at again and again
                    _log.error("policies not loaded, %s:\n%s", self._keep(), error)
                said = str(error)
            else:
                said = ""
            self._on_news()

    async def _load(self) -> None:
        """Read the policies and put them in force, all or nothing. Raise `PolicyError` where they are broken."""
        texts = await asyncio.to_thread(read_files, self._settings.policies)
        name = digest(texts)
        if name == self._digest:
            return
        self._digest = name
        with undisturbed():
            loaded, inline = await asyncio.to_thread(parse_files, texts, self._settings.mesh.namespace)
            for resource in loaded.skipped:
                _log.info("passed over, it is of another kind: %s", resource)
            if len(loaded.resources):
                resources = bind(loaded.resources, self._settings.keys.issuers)
                await self._put_in_force(Policies(resources=resources, inline=inline, generation=self._generation + 1))
            else:
                # Istio without policies allows everything; a mount that failed must not.
                _log.error("found no policy in %s: %s", ", ".join(map(str, self._settings.policies)), self._keep())
        # After the policies, not before them: what only warns must not delay them.
        for warning in (*loaded.warnings, *await asyncio.to_thread(self._analyze, loaded.resources, texts)):
            _log.warning("%s", warning)

    def _analyze(self, resources: Resources, texts: Mapping[str, str]) -> tuple[Problem, ...]:
        mesh = self._settings.mesh
        surroundings = Surroundings(
            trust_domains=mesh.trust_domains, root_namespace=mesh.root_namespace, posture=mesh.posture
        )
        return analyze(Written(resources=resources, texts=texts), surroundings)

    def _keep(self) -> str:
        return "the last good set stays in force" if self._generation else "every request is denied"

    async def _put_in_force(self, policies: Policies) -> None:
        sources = policies.sources()
        await self._fetcher.recall(sources)
        await self._put(policies)
        self._generation = policies.generation
        self._fetcher.track(sources)
        self._on_news()
        _log.info("policies loaded: %d resources, generation %d", len(policies.resources), policies.generation)
