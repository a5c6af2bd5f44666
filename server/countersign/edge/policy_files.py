"""Policy files: read them whole, watch them, and never serve half of a change.

The files are read into memory once and judged by content, so that a file being written, renamed or swapped while
it is read gives the old set or the new one. A Kubernetes ConfigMap is swapped by renaming the symlink ``..data``:
that is seen because the directory is watched, not the file.
"""

import asyncio
import errno
import hashlib
import logging
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from watchfiles import awatch

from countersign.core.facts import is_readable
from countersign.core.jwt_rule import InlineKeys, KeySource
from countersign.policy.parse import Loaded, parse, unreadable
from countersign.policy.problems import PolicyError, Problem
from countersign.tokens.keys import KeySet, KeySetError

_log: Final = logging.getLogger(__name__)

_SUFFIXES: Final = frozenset({".yaml", ".yml", ".json"})
_MAX_BYTES: Final = 10 * 1024 * 1024  # one file
_SETTLE_MS: Final = 50  # a change in several steps counts as one
_POLL: Final = 2.0  # seconds: file systems without notifications, and directories that were replaced


def read_files(roots: Sequence[Path]) -> dict[str, str]:
    """Every policy file's text by its path. Raise `PolicyError` for a file or directory that cannot be read.

    A name that is not UTF-8 is refused: it could not be shown wherever its policies are named as the reason.
    """
    texts: dict[str, str] = {}
    problems = []
    for root in roots:
        try:
            paths = _files(root)
        except OSError as error:  # also of a directory that was there a moment ago
            problems.append(_problem(root, error))
            continue
        for path in paths:
            try:
                texts[_named(path)] = _text(path)
            except (OSError, ValueError) as error:
                problems.append(_problem(path, error))
    if problems:
        raise PolicyError(problems)
    return texts


def _files(root: Path) -> list[Path]:
    """The policy files below a directory; names that start with a dot are Kubernetes' bookkeeping. Raise OSError."""
    if not root.is_dir():
        return [root]
    found: list[Path] = []
    for entry in sorted(root.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            found += _files(entry)
        elif entry.suffix in _SUFFIXES:
            if entry.is_fifo():  # reading it would wait for somebody to write
                raise OSError(errno.EINVAL, "a named pipe, and no file", str(entry))
            found.append(entry)
    return found


def _named(path: Path) -> str:
    name = str(path)
    if not is_readable(name):
        raise ValueError("the name is not UTF-8; rename it")
    return name


def _problem(path: Path, error: OSError | ValueError) -> Problem:
    named, why = path, str(error)
    if isinstance(error, OSError) and error.strerror:
        named, why = error.filename or path, f"{error.strerror[0].lower()}{error.strerror[1:]}"
    return unreadable(os.fsencode(named).decode("utf-8", "backslashreplace"), why)


def _text(path: Path) -> str:
    with path.open("rb") as file:
        data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise ValueError(f"larger than {_MAX_BYTES} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from error


def parse_files(texts: Mapping[str, str], namespace: str) -> tuple[Loaded, Mapping[KeySource, KeySet]]:
    """What the texts say, and the key sets that are written into them. Raise `PolicyError` where they are broken.

    ``namespace`` is that of resources which name none; empty if they must.
    """
    loaded = parse(texts, namespace or None, _wrong_with_jwks)
    inline: dict[KeySource, KeySet] = {
        rule.keys: KeySet.parse(rule.keys.jwks)  # `parse` has found them sound
        for resource in loaded.resources.request_authentications
        for rule in resource.rules
        if isinstance(rule.keys, InlineKeys)
    }
    return loaded, inline


def _wrong_with_jwks(text: str) -> str:
    try:
        KeySet.parse(text)
    except KeySetError as error:
        return str(error)
    return ""


def digest(texts: Mapping[str, str]) -> str:
    """A short name of a set of files: equal names and texts, equal digest."""
    sha = hashlib.sha256()
    for name, text in sorted(texts.items()):
        octets = text.encode()
        sha.update(f"{len(name)}:{name}{len(octets)}:".encode())
        sha.update(octets)
    return sha.hexdigest()


async def changes(roots: Sequence[Path], stop: asyncio.Event, poll: float = _POLL) -> AsyncIterator[None]:
    """Wake whenever the files may have changed, and every ``poll`` seconds; the reader compares contents.

    Ends when ``stop`` is set.
    """
    directories = {root if root.is_dir() else root.parent for root in roots}
    while not stop.is_set():
        try:
            async for _ in awatch(
                *directories,
                watch_filter=None,
                debounce=1000,
                step=_SETTLE_MS,
                stop_event=stop,
                rust_timeout=int(poll * 1000),
                yield_on_timeout=True,
            ):
                yield
        # A watched directory went away, or a name in it is not UTF-8 (raised from a group): poll until that is over.
        except (OSError, RuntimeError, ExceptionGroup) as error:
            _log.warning("cannot watch the policy directories, looking again: %s", error)
            await asyncio.sleep(poll)
            yield
