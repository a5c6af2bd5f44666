"""The composition root: builds the parts of `serve`, joins them, and swaps the snapshot that checks read."""

import asyncio
import logging
import signal
from collections.abc import Mapping
from dataclasses import replace
from itertools import chain
from typing import Final

from countersign.authorize import Snapshot
from countersign.core.jwt_rule import FetchedKeys, InlineKeys, KeySource
from countersign.edge.check import Checker, report_on
from countersign.edge.keys.bind import bind
from countersign.edge.keys.fetcher import KeyFetcher
from countersign.edge.keys.saved import prepare
from countersign.edge.policy_files import changes, digest, parse_files, read_files
from countersign.edge.probes import Probes
from countersign.edge.server import Server
from countersign.edge.transport import make_server
from countersign.policy.analysis.analyze import Written, analyze
from countersign.policy.analysis.surroundings import Surroundings
from countersign.policy.problems import PolicyError, Problem
from countersign.policy.resources import Resources
from countersign.policy.scope import PolicySet
from countersign.settings import Settings
from countersign.tokens.cache import TokenCache
from countersign.tokens.keys import KeySet

_log: Final = logging.getLogger(__name__)

_GRACE: Final = 10.0  # seconds for running checks to end after SIGTERM

_NO_POLICIES: Final = "no policy has been loaded"


class App:
    """One serving process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        tokens = TokenCache(settings.token_cache) if settings.token_cache else None
        self._snapshot = Snapshot(mesh=settings.mesh, policies=None, keys={}, tokens=tokens)
        self._inline_keys: Mapping[KeySource, KeySet] = {}
        self._fetched_keys: Mapping[FetchedKeys, KeySet] = {}
        self._news = asyncio.Event()  # something that readiness depends on has changed
        self._fetcher = KeyFetcher(self._take_keys, settings.keys, on_landing=self._news.set)
        self._digest = ""
        self._has_been_ready = False
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT. Raise `PolicyError`, `TransportError` or OSError where it cannot start."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        if self._settings.keys.cache_directory is not None:
            prepare(self._settings.keys.cache_directory)
        await self._load()
        checker = Checker(lambda: self._snapshot, self._fetcher.refresh, report_on(loop))
        server = make_server(checker.answer, self._settings.listen, self._settings.transport)
        try:
            await server.start()
            _log.info("listening on %s", ", ".join(map(str, self._settings.listen)))
            await self._say(server)
            # After the server and its health: whoever is told that we are ready may call at once, and ask again.
            with Probes(self._settings.probes, self._not_ready):
                await self._serve(server)
        finally:
            await server.drain(_GRACE)

    async def _serve(self, server: Server) -> None:
        tasks = [
            asyncio.create_task(self._fetcher.run(), name="keys"),
            asyncio.create_task(self._watch(), name="policies"),
            asyncio.create_task(self._announce(server), name="health"),
            asyncio.create_task(server.ended(), name="checks"),
        ]
        stopped = asyncio.create_task(self._stop.wait(), name="stop")
        try:
            # A background task never ends by itself: if one does, stop rather than serve without it.
            done, _ = await asyncio.wait([*tasks, stopped], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._stop.set()
            _log.info("stopping")
            await server.drain(_GRACE)  # before the tasks end: running checks may wait for a key
            for task in (*tasks, stopped):
                task.cancel()
            await asyncio.gather(*tasks, stopped, return_exceptions=True)
        for task in done:
            if task is not stopped:
                task.result()

    def _not_ready(self) -> str:
        """Why checks should not come here yet, or no more; empty if they should.

        Keys are waited for once, at the start: later, a new issuer must not take the others' traffic away.
        """
        if self._stop.is_set():
            return "stopping"
        if self._snapshot.policies is None:
            return _NO_POLICIES
        untried = () if self._has_been_ready else self._fetcher.untried()
        if untried:
            return f"fetching keys from {', '.join(untried)}"
        self._has_been_ready = True
        return ""

    async def _announce(self, server: Server) -> None:
        """Tell health checks whatever readiness becomes."""
        while True:
            await self._say(server)
            await self._news.wait()
            self._news.clear()

    async def _say(self, server: Server) -> None:
        await server.set_serving(serving=not self._not_ready())

    async def _watch(self) -> None:
        said = ""
        async for _ in changes(self._settings.policies, self._stop):
            try:
                await self._load()
            except PolicyError as error:
                if str(error) != said:  # the files are looked at again and again
                    _log.error("policies not loaded, %s:\n%s", self._keep(), error)
                said = str(error)
            else:
                said = ""
            self._news.set()

    async def _load(self) -> None:
        """Read the policies and put them in force, all or nothing. Raise `PolicyError` where they are broken."""
        texts = await asyncio.to_thread(read_files, self._settings.policies)
        name = digest(texts)
        if name == self._digest:
            return
        self._digest = name
        loaded, inline = await asyncio.to_thread(parse_files, texts, self._settings.mesh.namespace)
        for warning in (*loaded.warnings, *await asyncio.to_thread(self._analyze, loaded.resources, texts)):
            _log.warning("%s", warning)
        for resource in loaded.skipped:
            _log.info("passed over, it is of another kind: %s", resource)
        if not len(loaded.resources):
            # Istio without policies allows everything; a mount that failed must not.
            _log.error("found no policy in %s: %s", ", ".join(map(str, self._settings.policies)), self._keep())
            return
        await self._put_in_force(bind(loaded.resources, self._settings.keys.issuers), inline)

    def _analyze(self, resources: Resources, texts: Mapping[str, str]) -> tuple[Problem, ...]:
        mesh = self._settings.mesh
        surroundings = Surroundings(
            trust_domains=mesh.trust_domains, root_namespace=mesh.root_namespace, posture=mesh.posture
        )
        return analyze(Written(resources=resources, texts=texts), surroundings)

    def _keep(self) -> str:
        return "every request is denied" if self._snapshot.policies is None else "the last good set stays in force"

    async def _put_in_force(self, resources: Resources, inline: Mapping[KeySource, KeySet]) -> None:
        previous, mesh = self._snapshot.policies, self._settings.mesh
        generation = previous.generation + 1 if previous else 1
        policies = PolicySet(resources, mesh.root_namespace, generation)
        if previous is not None:  # no request waits for the new set to be compiled
            await asyncio.to_thread(policies.prepare, previous.workloads(), mesh.posture, mesh.trust_domains)
        sources = [
            rule.keys
            for resource in resources.request_authentications
            for rule in resource.rules
            if not isinstance(rule.keys, InlineKeys)
        ]
        await self._fetcher.recall(sources)
        self._inline_keys = inline
        self._snapshot = replace(self._snapshot, policies=policies, keys=_merged(inline, self._fetched_keys))
        self._fetcher.track(sources)
        self._news.set()
        _log.info("policies loaded: %d resources, generation %d", len(resources), generation)

    def _take_keys(self, keys: Mapping[FetchedKeys, KeySet]) -> None:
        self._fetched_keys = keys
        self._snapshot = replace(self._snapshot, keys=_merged(self._inline_keys, keys))


def _merged(inline: Mapping[KeySource, KeySet], fetched: Mapping[FetchedKeys, KeySet]) -> Mapping[KeySource, KeySet]:
    return dict(chain[tuple[KeySource, KeySet]](inline.items(), fetched.items()))
