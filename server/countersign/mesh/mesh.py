"""The whole mesh in one temporary directory: brought up part by part, taken down in reverse order whatever happens."""

import contextlib
import datetime as dt
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from countersign.mesh.certificates import write_certificates
from countersign.mesh.client import Door
from countersign.mesh.countersign import Countersign
from countersign.mesh.envoy import Envoy
from countersign.mesh.interrupts import held_back
from countersign.mesh.issuer import ALGORITHMS, Issuer, IssuerServer
from countersign.mesh.process import Child, MeshError
from countersign.mesh.relocate import Places, relocate_policies
from countersign.mesh.scenario import EDIT, EDITED_FILE, ISSUER, Caller, Change, Token
from countersign.mesh.tokens import mint
from countersign.mesh.upstream import upstream

LISTENERS: Final = {"httpbin": "inbound", "sleep": "outbound", "edge": "edge"}
_ANY: Final = ("127.0.0.1", 0)  # a free port

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mesh:
    """The running mesh."""

    directory: Path
    certificates: Path
    policies: Path
    issuer: Issuer
    countersign: Countersign
    envoys: Mapping[str, Envoy]

    def door(self, caller: Caller) -> Door:
        """Where the caller enters."""
        inbound = self.port("httpbin")
        match caller:
            case Caller.SLEEP:
                return Door(name="sleep's sidecar", port=self.port("sleep"))
            case Caller.EDGE:
                return Door(name="the edge", port=self.port("edge"))
            case Caller.STRANGER:
                return Door(name="httpbin's sidecar", port=inbound)
            case Caller.BATCH:
                return Door(name="httpbin's sidecar", port=inbound, certificates=self.certificates / "batch")

    def port(self, envoy: str) -> int:
        """The port of an Envoy's listener."""
        return self.envoys[envoy].port(LISTENERS[envoy])

    def token(self, token: Token) -> str:
        """A fresh token."""
        return mint(self.issuer, token, time.time(), self.certificates)

    def logged(self, request_id: str) -> Mapping[str, Any]:
        """What httpbin's sidecar logged about a request."""
        return self.envoys["httpbin"].access_log(request_id)

    def apply(self, change: Change) -> None:
        """Change the mesh while it runs."""
        match change:
            case Change.ROTATE_KEYS:
                for algorithm in ALGORITHMS:
                    self.issuer.rotate(algorithm)
            case Change.EDIT_POLICY:
                self._edit()
            case Change.STOP:
                self.countersign.stop()
            case Change.START:
                with held_back():
                    self.countersign.__enter__()
                self.countersign.wait_ready()

    def children(self) -> tuple[Child, ...]:
        """Every process of the mesh."""
        parts = [self.countersign.child, *(envoy.child for envoy in self.envoys.values())]
        return tuple(child for child in parts if child is not None)

    def _edit(self) -> None:
        """Save the file as an editor does: a new file takes the place of the old one."""
        file = self.policies / EDITED_FILE
        before, after = EDIT
        text = file.read_text(encoding="utf-8")
        if before not in text:
            raise MeshError(f"{EDITED_FILE}: `{before}` is not there to be edited")
        draft = self.directory / EDITED_FILE
        draft.write_text(text.replace(before, after), encoding="utf-8")
        draft.replace(file)


@contextlib.contextmanager
def running_mesh(configurations: Path) -> Iterator[Mesh]:
    """Bring the mesh of a directory of configurations up; take it down on leaving, in reverse order."""
    if not (configurations / "httpbin.yaml").is_file():
        raise MeshError(f"{configurations}: no httpbin.yaml there; name the repository's envoy/ with --configs")
    with contextlib.ExitStack() as parts:
        # A short name: the path of a unix socket has 107 bytes.
        with held_back():
            directory = Path(parts.enter_context(tempfile.TemporaryDirectory(prefix="cs-")))
        try:
            yield _bring_up(configurations, directory, parts)
        finally:
            with held_back():
                parts.close()


def _bring_up(configurations: Path, directory: Path, parts: contextlib.ExitStack) -> Mesh:
    run, certificates, policies = (directory / name for name in ("run", "certs", "policies"))
    for each in (run, certificates, policies):
        each.mkdir(mode=0o700)
    write_certificates(certificates, dt.datetime.now(dt.UTC))

    def enter(part: contextlib.AbstractContextManager[T]) -> T:
        with held_back():  # what has started is always noted, and so always ended
            return parts.enter_context(part)

    issuer = enter(IssuerServer(Issuer(ISSUER)))
    application = enter(upstream("127.0.0.1", 0))
    relocate_policies(configurations / "policies", policies, issuer.jwks_uri)
    countersign = enter(Countersign(run / "authz.sock", policies, directory))

    def start(name: str, addresses: Mapping[str, tuple[str, int]]) -> Envoy:
        places = Places(
            addresses={"127.0.0.1:9901": _ANY, **addresses},
            paths={"/run/countersign": run, "/run/mesh/certs": certificates},
        )
        return enter(Envoy(configurations / f"{name}.yaml", places, directory))

    httpbin = start("httpbin", {"0.0.0.0:15006": _ANY, "upstream:8080": ("127.0.0.1", application.port)})
    httpbin.wait_ready()  # its port is what the other two need
    inbound = {"httpbin:15006": ("127.0.0.1", httpbin.port(LISTENERS["httpbin"]))}
    sleep = start("sleep", {"0.0.0.0:15001": _ANY, **inbound})
    edge = start("edge", {"0.0.0.0:8080": _ANY, **inbound})
    for envoy in (sleep, edge):
        envoy.wait_ready()
    countersign.wait_ready()
    return Mesh(
        directory=directory,
        certificates=certificates,
        policies=policies,
        issuer=issuer.issuer,
        countersign=countersign,
        envoys={"httpbin": httpbin, "sleep": sleep, "edge": edge},
    )
