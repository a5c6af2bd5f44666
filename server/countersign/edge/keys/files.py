"""A key set in a local file: read whole, within the same limits as one that comes over HTTP.

The file is opened by its path each time, so that a rename and Kubernetes' swap of the symlink ``..data`` are seen. One
that is read while somebody writes it does not parse, and the last good set stays.
"""

import os
import stat
from typing import Final

from countersign.core.jwt_rule import FileKeys
from countersign.edge.keys.fetch import FetchError
from countersign.tokens.keys import MAX_TEXT, KeySet, KeySetError

_MAX_BYTES: Final = MAX_TEXT


def read(source: FileKeys) -> KeySet:
    """The keys in the file. Raise `FetchError`."""
    try:
        return KeySet.parse(read_text(source.path))
    except KeySetError as error:
        raise FetchError(str(error)) from error


def read_text(path: str) -> str:
    """The file as text. Raise `FetchError`."""
    try:
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe without a writer would block
        with open(number, "rb") as file:  # noqa: PTH123 (a descriptor: what is checked is what is read)
            if not stat.S_ISREG(os.fstat(number).st_mode):
                raise FetchError("no regular file")
            octets = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise FetchError(error.strerror or type(error).__name__) from error
    if len(octets) > _MAX_BYTES:
        raise FetchError(f"larger than {_MAX_BYTES} octets")
    try:
        return octets.decode()
    except UnicodeDecodeError as error:
        raise FetchError(f"not UTF-8 at octet {error.start}") from error
