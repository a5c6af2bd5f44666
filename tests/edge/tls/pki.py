"""Certificates of today for real handshakes, and the files that have them."""

import datetime as dt
import os
from pathlib import Path
from typing import Any, Final

from countersign.certificates.served import Served, read_served
from countersign.core.spiffe import SpiffeId
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.support.certificates import Issued, authority, issue

ENVOY: Final = "spiffe://cluster.local/ns/apps/sa/envoy"
OTHER: Final = "spiffe://cluster.local/ns/apps/sa/other"
SERVER: Final = "spiffe://cluster.local/ns/mesh/sa/countersign"
NAME: Final = "countersign"
ALLOWED: Final = frozenset({SpiffeId.parse(ENVOY)})

_MINUTE: Final = dt.timedelta(minutes=1)


def times(start: float = -1, end: float = 60) -> dict[str, Any]:
    """A validity from and to so many minutes from now."""
    now = dt.datetime.now(dt.UTC).replace(microsecond=0)
    return {"not_before": now + start * _MINUTE, "not_after": now + end * _MINUTE}


def new_authority(subject: str = "Test CA") -> Issued:
    """An authority that is valid now."""
    return authority(subject, **times())


def server_of(ca: Issued, **more: Any) -> Issued:
    """The server's certificate."""
    return issue(SERVER, by=ca, dns=[NAME], **{**times(), **more})


def client_of(signer: Issued, /, *uris: str, **more: Any) -> Issued:
    """A client's certificate."""
    return issue(*uris, by=signer, **{**times(), **more})


def key_pem(issued: Issued) -> bytes:
    """Its private key."""
    return issued.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def served(server: Issued, clients: Issued) -> Served:
    """What a server shows, and whom it asks for."""
    now = dt.datetime.now(dt.UTC).timestamp()
    return read_served(server.pem.encode(), key_pem(server), clients.pem.encode(), now)


def write(directory: Path, server: Issued, clients: Issued) -> None:
    """``tls.crt``, ``tls.key`` and ``ca.crt``, each replaced as a whole, one after the other."""
    for name, content in (
        ("tls.crt", server.pem.encode()),
        ("tls.key", key_pem(server)),
        ("ca.crt", clients.pem.encode()),
    ):
        draft = directory / f".{name}"
        draft.write_bytes(content)
        draft.replace(directory / name)


def swap(directory: Path, version: str, server: Issued, clients: Issued) -> None:
    """The same as Kubernetes writes it: a new directory behind the link ``..data``, which is swapped."""
    real = directory / f"..{version}"
    real.mkdir(parents=True)
    write(real, server, clients)
    link = directory / "..draft"
    link.symlink_to(real.name)
    link.replace(directory / "..data")
    for name in ("tls.crt", "tls.key", "ca.crt"):
        if not os.path.lexists(directory / name):
            (directory / name).symlink_to(f"..data/{name}")


def flags(directory: Path) -> list[str]:
    """The flags of `serve` for these files."""
    files = {"--tls-cert": "tls.crt", "--tls-key": "tls.key", "--tls-client-ca": "ca.crt"}
    words = [word for flag, name in files.items() for word in (flag, str(directory / name))]
    return [*words, "--tls-allow-client", ENVOY]
