"""The copies of all sources: read before they are tracked, written one after the other beside the request path."""

import asyncio
import logging
import time
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final

from countersign.core.jwt_rule import FetchedKeys, RemoteKeys
from countersign.edge.keys import saved
from countersign.edge.keys.fetch import Fetched
from countersign.edge.keys.saved import Copy, CopyError, Recalled

_log: Final = logging.getLogger(__name__)


class Copies:
    """Does nothing without a directory. A copy that fails costs a log line, never a key."""

    def __init__(self, directory: Path | None, max_age: float) -> None:
        self._directory = directory
        self._max_age = max_age
        self._recalled: dict[RemoteKeys, Recalled] = {}
        self._texts: dict[RemoteKeys, str] = {}  # of the sets at hand, for when they are only confirmed
        self._unwritten: dict[RemoteKeys, Copy | None] = {}  # None: to be forgotten
        self._work = asyncio.Event()

    async def recall(self, sources: Iterable[RemoteKeys]) -> None:
        """Read the copies of these, for `take`."""
        directory = self._directory
        if directory is None:
            return
        for source in sources:
            try:
                copy = await asyncio.to_thread(saved.recall, directory, source, time.time(), self._max_age)
            except CopyError as error:
                _log.warning("the copy of the keys of %s is not used: %s", source, error)
                continue
            if copy is not None:
                self._recalled[source] = copy

    def take(self) -> list[tuple[RemoteKeys, Recalled]]:
        """What was recalled, once."""
        taken, self._recalled = list(self._recalled.items()), {}
        for source, copy in taken:
            self._texts[source] = copy.text
        return taken

    def retain(self, tracked: Collection[FetchedKeys]) -> None:
        """Hold nothing of other sources any more. Their copies stay: a policy may come back."""
        self._texts = {source: text for source, text in self._texts.items() if source in tracked}

    def keep(self, source: RemoteKeys, fetched: Fetched) -> None:
        """Have a fetched or confirmed set written, or forgotten if its issuer wants it nowhere."""
        if self._directory is None:
            return
        if fetched.text is not None:
            self._texts[source] = fetched.text
        text = self._texts.get(source)
        if not fetched.freshness.storable:  # RFC 9111 5.2.2.5
            self._unwritten[source] = None
        elif text is not None:
            self._unwritten[source] = Copy(text=text, confirmed_at=time.time(), validators=fetched.validators)
        self._work.set()

    async def run(self) -> None:
        """Write what is kept, until cancelled; then write what is left."""
        try:
            while True:
                await self._work.wait()
                self._work.clear()
                await self._write()
        finally:
            self._write_rest()

    async def _write(self) -> None:
        while self._unwritten:
            source = next(iter(self._unwritten))
            await asyncio.to_thread(self._write_one, source, self._unwritten.pop(source))

    def _write_rest(self) -> None:
        while self._unwritten:
            self._write_one(*self._unwritten.popitem())

    def _write_one(self, source: RemoteKeys, copy: Copy | None) -> None:
        if self._directory is None:
            return
        try:
            if copy is None:
                saved.forget(self._directory, source)
            else:
                saved.save(self._directory, source, copy)
        except CopyError as error:
            _log.warning("the keys of %s cannot be copied to %s: %s", source, self._directory, error)
