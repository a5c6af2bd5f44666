"""Certificates in files: read together, because they must fit."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from countersign.certificates.read import CertificateError
from countersign.certificates.served import Served, read_served
from countersign.edge.tls.settings import TlsFiles

_MAX_BYTES: Final = 1024 * 1024  # one file


class Reader:
    """Reads the three files as often as it is asked.

    A rotation may write one file after the other: between two of them they do not fit, and cannot be used.
    """

    def __init__(self, files: TlsFiles) -> None:
        self.paths = (files.certificate, files.key, files.client_ca)
        self._sound: list[bytes] = []  # what the files held when that could be used

    async def offer(self) -> Served | str:
        """What the files hold; a text says why it cannot be used."""
        try:
            octets = await asyncio.to_thread(self._octets)
            served = await asyncio.to_thread(_served, octets)
        except CertificateError as error:
            self._sound = []
            return f"{', '.join(map(str, self.paths))}: {error}"
        except OSError as error:
            self._sound = []
            return f"{error.filename}: {error.strerror}"
        self._sound = octets
        return served

    async def has_changed(self) -> bool:
        """Whether the files are not what could be used. What could not is always tried again: in time it is valid."""
        try:
            return await asyncio.to_thread(self._octets) != self._sound
        except OSError:
            return True

    def _octets(self) -> list[bytes]:
        return [_content(path) for path in self.paths]


def _served(octets: Sequence[bytes]) -> Served:
    certificate, key, client_ca = octets
    return read_served(certificate, key, client_ca, time.time())


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        octets = file.read(_MAX_BYTES + 1)
    if len(octets) > _MAX_BYTES:
        raise OSError(0, f"larger than {_MAX_BYTES} bytes", str(path))
    return octets
