"""Who calls: SPIFFE identities with real certificates, near each other and near what policies name."""

import datetime as dt
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from countersign.mesh.certificates import Authority, Workload
from cryptography.hazmat.primitives.serialization import Encoding

PLAINTEXT: Final = ""  # the caller without a certificate
IDENTITIES: Final[Mapping[str, str]] = {
    "sleep": "spiffe://cluster.local/ns/apps/sa/sleep",
    "web": "spiffe://cluster.local/ns/edge/sa/web",
    "batch": "spiffe://cluster.local/ns/legacy-apps/sa/batch-sleep",
    "alias": "spiffe://old.example/ns/apps/sa/sleep",
    "deep": "spiffe://cluster.local/region/eu/ns/apps/team/red/sa/sleep/v2",
    "shifted": "spiffe://cluster.local/ns/edge/ns/apps/sa/web",
    "bare": "spiffe://cluster.local/monitor",
}
_SERVER: Final = Workload("server", "spiffe://cluster.local/ns/judge/sa/web", "web.example")


def write(directory: Path) -> None:
    """Write ``ca.crt`` and a certificate and key for the server and for each identity."""
    authority = Authority(dt.datetime.now(dt.UTC))
    (directory / "ca.crt").write_bytes(authority.certificate.public_bytes(Encoding.PEM))
    for workload in (_SERVER, *(Workload(name, spiffe_id) for name, spiffe_id in IDENTITIES.items())):
        certificate, key = authority.issue(workload)
        (directory / f"{workload.name}.crt").write_bytes(certificate)
        (directory / f"{workload.name}.key").write_bytes(key)


def contexts(directory: Path) -> Mapping[str, ssl.SSLContext]:
    """What each identity connects with. The server's name is not checked: SNI is under test, and takes any value."""
    found = {}
    for name in IDENTITIES:
        context = ssl.create_default_context(cafile=str(directory / "ca.crt"))
        context.check_hostname = False
        context.load_cert_chain(directory / f"{name}.crt", directory / f"{name}.key")
        found[name] = context
    return found
