"""Who calls: identities with real certificates, near each other and near what policies name, and some that are none."""

import datetime as dt
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from countersign.mesh.certificates import Authority, Workload
from cryptography import x509
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
_SLEEP: Final = x509.UniformResourceIdentifier(IDENTITIES["sleep"])
_DNS: Final = x509.DNSName("sleep.apps.svc")


def _uri(text: str) -> x509.UniformResourceIdentifier:
    return x509.UniformResourceIdentifier(text)


# Certificates of the mesh's CA that Istio would not let in, but for the first, or that it never makes.
NAMED: Final[Mapping[str, Sequence[x509.GeneralName]]] = {"service": [_DNS, _SLEEP]}
FOREIGN: Final[Mapping[str, Sequence[x509.GeneralName]]] = {
    "foreign": [_uri("spiffe://foreign.example/ns/apps/sa/sleep")],
    "longer": [_uri("spiffe://cluster.local.example/ns/apps/sa/sleep")],
}
NAMELESS: Final[Mapping[str, Sequence[x509.GeneralName]]] = {
    "dns": [_DNS],
    "mail": [x509.RFC822Name("sleep@apps.example")],
}
MALFORMED: Final[Mapping[str, Sequence[x509.GeneralName]]] = {
    "two": [_SLEEP, _uri(IDENTITIES["web"])],
    "twice": [_SLEEP, _SLEEP],
    "hidden": [_uri("https://sleep.example/"), _SLEEP],
    "other": [_uri("https://sleep.example/"), _DNS],
    "upper": [_uri("spiffe://Cluster.local/ns/apps/sa/sleep")],
    "domain": [_uri("spiffe://cluster.local")],
    "injected": [_uri(f"{IDENTITIES['sleep']};URI={IDENTITIES['web']}")],
    "dots": [_uri("spiffe://cluster.local/ns/apps/../apps/sa/sleep")],
}
ODD: Final = {**NAMED, **FOREIGN, **NAMELESS, **MALFORMED}
_SERVER: Final = Workload("server", "spiffe://cluster.local/ns/judge/sa/web", "web.example")


def write(directory: Path, servers: Mapping[str, str] | None = None) -> None:
    """Write ``ca.crt`` and a certificate and key for each identity and each server, by name to SPIFFE ID."""
    authority = Authority(dt.datetime.now(dt.UTC))
    (directory / "ca.crt").write_bytes(authority.certificate.public_bytes(Encoding.PEM))
    others = {**IDENTITIES, **(servers or {})}
    for workload in (_SERVER, *(Workload(name, spiffe_id) for name, spiffe_id in others.items())):
        _write(directory, workload.name, *authority.issue(workload))
    for name, names in ODD.items():
        _write(directory, name, *authority.certify(names))


def _write(directory: Path, name: str, certificate: bytes, key: bytes) -> None:
    (directory / f"{name}.crt").write_bytes(certificate)
    (directory / f"{name}.key").write_bytes(key)


def contexts(directory: Path) -> Mapping[str, ssl.SSLContext]:
    """What each identity connects with. The server's name is not checked: SNI is under test, and takes any value."""
    found = {}
    for name in (*IDENTITIES, *ODD):
        context = ssl.create_default_context(cafile=str(directory / "ca.crt"))
        context.check_hostname = False
        context.load_cert_chain(directory / f"{name}.crt", directory / f"{name}.key")
        found[name] = context
    return found
