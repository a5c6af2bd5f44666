"""Copies of fetched key sets on a disk, so that a restart while an issuer is down still verifies its tokens.

A copy is believed only if it is whole (its digest), ours (owner and mode), of this very source, and not too old,
counted from when the issuer last confirmed it. Then it is parsed as strictly as what comes from the issuer. The digest
finds damage; what keeps others from writing keys of theirs is who may write the file and its directory.
"""

import hashlib
import json
import os
import stat
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from countersign.core.jwt_rule import RemoteKeys
from countersign.edge.keys.freshness import Validators
from countersign.tokens.keys import MAX_TEXT, KeySet, KeySetError
from countersign.tokens.strict_json import JsonError, loads

_FORMAT: Final = 1
_MAX_BYTES: Final = 4 * MAX_TEXT + 16384  # a character may take four octets; beside the text there is little
_MAX_FUTURE: Final = 60.0  # seconds that a copy may seem to be from the future: clocks are set
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_PRIVATE: Final = 0o600


class CopyError(Exception):
    """A copy that cannot be written, or is not believed; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """A key set's text, when it was confirmed (seconds since the epoch), and how to ask whether it has changed."""

    text: str
    confirmed_at: float
    validators: Validators | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recalled:
    """A copy that is believed: its keys, their text, and their age in seconds."""

    keys: KeySet
    text: str
    age: float
    validators: Validators | None


def prepare(directory: Path) -> None:
    """Make the directory if need be. Raise OSError where no copy can be kept in it."""
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        _check_directory(directory)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise OSError(f"{directory}: no keys can be copied there: {error.strerror or error}") from error
    except CopyError as error:
        raise OSError(f"{directory}: no keys can be copied there: {error}") from error


def path_of(directory: Path, source: RemoteKeys) -> Path:
    """Where the copy of a source is: its name says nothing, and is of this very source."""
    name = hashlib.sha256(json.dumps(_identity(source)).encode()).hexdigest()
    return directory / f"{name}.json"


def save(directory: Path, source: RemoteKeys, copy: Copy) -> None:
    """Write a copy, whole or not at all. Raise `CopyError`."""
    known = copy.validators
    content = {
        "format": _FORMAT,
        "source": _identity(source),
        "confirmedAt": copy.confirmed_at,
        "validators": None if known is None else [known.uri, known.etag, known.last_modified],
        "text": copy.text,
    }
    body = json.dumps(content).encode()
    try:
        _check_directory(directory)
        _replace(path_of(directory, source), hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
    except OSError as error:
        raise CopyError(error.strerror or type(error).__name__) from error


def forget(directory: Path, source: RemoteKeys) -> None:
    """Remove the copy of a source, if there is one. Raise `CopyError`."""
    try:
        path_of(directory, source).unlink(missing_ok=True)
    except OSError as error:
        raise CopyError(error.strerror or type(error).__name__) from error


def recall(directory: Path, source: RemoteKeys, now: float, max_age: float) -> Recalled | None:
    """The copy of a source at ``now`` (seconds since the epoch); None if there is none. Raise `CopyError`."""
    try:
        _check_directory(directory)
        octets = _read(path_of(directory, source))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CopyError(error.strerror or type(error).__name__) from error
    copy = _parse(octets, source)
    age = now - copy.confirmed_at
    if not -_MAX_FUTURE <= age < max_age:
        raise CopyError("too old" if age > 0 else "from the future")
    try:
        keys = KeySet.parse(copy.text)
    except KeySetError as error:
        raise CopyError(str(error)) from error
    return Recalled(keys=keys, text=copy.text, age=max(age, 0.0), validators=copy.validators)


def _identity(source: RemoteKeys) -> list[Any]:
    return [source.uri, source.discover, source.access]


def _check_directory(directory: Path) -> None:
    found = directory.stat()
    if not stat.S_ISDIR(found.st_mode):
        raise CopyError("no directory")
    if found.st_uid not in (os.geteuid(), 0) or found.st_mode & _OTHERS_WRITE:
        raise CopyError("others may write the directory: it must be of this user, and only this user's to write")


def _replace(path: Path, octets: bytes) -> None:
    """Write beside it, make sure that it is on the disk, and rename: a reader sees the old file or the new one."""
    number, name = tempfile.mkstemp(prefix=".", dir=path.parent)  # 0600
    try:
        with open(number, "wb") as file:  # noqa: PTH123 (a descriptor)
            file.write(octets)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)  # the rename itself
    finally:
        os.close(directory)


def _read(path: Path) -> bytes:
    number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(number, "rb") as file:  # noqa: PTH123 (a descriptor: what is checked is what is read)
        found = os.fstat(number)
        if not stat.S_ISREG(found.st_mode):
            raise CopyError("no regular file")
        if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) != _PRIVATE:
            raise CopyError("not a file of this user alone (mode 0600)")
        octets = file.read(_MAX_BYTES + 1)
    if len(octets) > _MAX_BYTES:
        raise CopyError("larger than any copy")
    return octets


def _parse(octets: bytes, source: RemoteKeys) -> Copy:
    digest, _, body = octets.partition(b"\n")
    if digest != hashlib.sha256(body).hexdigest().encode():
        raise CopyError("damaged: its digest is another one")
    try:
        match loads(body.decode()):
            case {
                "format": 1,
                "source": list(identity),
                "confirmedAt": float() | int() as confirmed_at,
                "validators": None | [str(), str(), str()] as known,
                "text": str(text),
            } if identity == _identity(source) and not isinstance(confirmed_at, bool):
                kept = None if known is None else Validators(uri=known[0], etag=known[1], last_modified=known[2])
                return Copy(text=text, confirmed_at=float(confirmed_at), validators=kept)
    except (JsonError, UnicodeDecodeError) as error:
        raise CopyError("not what this version writes") from error
    raise CopyError("of another source, or not what this version writes")
