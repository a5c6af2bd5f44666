"""The sidecar of `envoy/httpbin.yaml` with settings changed: the real Envoy, and a Countersign in this process."""

import contextlib
import datetime as dt
import http.client
import json
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from countersign.mesh.certificates import thumbprint, write_certificates
from countersign.mesh.client import Door, send
from countersign.mesh.envoy import Envoy
from countersign.mesh.relocate import Places
from countersign.mesh.upstream import upstream
from countersign.snapshot import Snapshot

from tests.edge.serving import TIMEOUT, Serving

CONFIGURATION: Final = (Path(__file__).parents[2] / "envoy" / "httpbin.yaml").read_text()
_ANY_PORT: Final = ("127.0.0.1", 0)

Change = tuple[str, str]  # what stands there once, and what is to stand there


def changed(*changes: Change) -> str:
    """The committed configuration with these changes."""
    text = CONFIGURATION
    for before, after in changes:
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the caller got, the reason that Countersign gave (empty if it was not asked), what the application saw."""

    status: int
    reason: str
    echo: dict[str, Any]


class Sidecar:
    """One Envoy, and who may call it."""

    def __init__(self, certificates: Path, envoy: Envoy) -> None:
        self.certificates = certificates
        self.envoy = envoy

    def ask(self, caller: str, path: str, *headers: tuple[str, str], method: str = "GET") -> Seen:
        """Send a request; ``caller`` is a workload of the mesh, or empty for plaintext."""
        certificates = self.certificates / caller if caller else None
        door = Door(name="sidecar", port=self.envoy.port("inbound"), certificates=certificates)
        request_id = str(uuid.uuid4())
        answer = send(door, method, path, (("x-request-id", request_id), *headers))
        refused_unread = "x-request-id" not in answer.headers
        said = {} if refused_unread else self.envoy.access_log(request_id)["ext_authz"] or {}
        echo = json.loads(answer.body) if answer.body.startswith("{") else {}
        return Seen(status=answer.status, reason=said.get("reason", ""), echo=echo)

    def get(self, caller: str, path: str, *headers: tuple[str, str]) -> tuple[int, str]:
        """The status and the reason only."""
        seen = self.ask(caller, path, *headers)
        return seen.status, seen.reason

    def thumbprint(self, workload: str) -> str:
        """The hash of a workload's certificate as ``cnf`` has it."""
        return thumbprint(self.certificates / workload / "tls.crt")


@contextlib.contextmanager
def sidecars(directory: Path, texts: Sequence[str], current: Snapshot | None) -> Iterator[list[Sidecar]]:
    """An Envoy for each configuration, with the same callers, application, and Countersign; None: nobody answers."""
    for name in ("run", "certs"):
        (directory / name).mkdir(exist_ok=True)
    write_certificates(directory / "certs", dt.datetime.now(dt.UTC))
    with contextlib.ExitStack() as parts:
        application = parts.enter_context(upstream(*_ANY_PORT))
        addresses = dict.fromkeys(("127.0.0.1:9901", "0.0.0.0:15006"), _ANY_PORT)
        places = Places(
            addresses={**addresses, "upstream:8080": ("127.0.0.1", application.port)},
            paths={"/run/countersign": directory / "run", "/run/mesh/certs": directory / "certs"},
        )
        if current is not None:
            parts.enter_context(Serving(directory / "run", lambda: current))
        envoys = []
        for number, text in enumerate(texts):
            file = directory / f"sidecar-{number}.yaml"
            file.write_text(text)
            envoys.append(parts.enter_context(Envoy(file, places, directory)))
        for envoy in envoys:
            envoy.wait_ready()
        yield [Sidecar(directory / "certs", envoy) for envoy in envoys]


def config_dump(directory: Path, number: int = 0) -> str:
    """What the admin interface of one of the Envoys in ``directory`` says that it runs."""
    connection = http.client.HTTPConnection((directory / f"sidecar-{number}.admin").read_text(), timeout=TIMEOUT)
    with contextlib.closing(connection):
        connection.request("GET", "/config_dump?include_eds")
        return connection.getresponse().read().decode()
