"""A plain HTTP client for the admin API, and an API with a given view."""

import http.client
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from countersign.admin.denials import Denial
from countersign.admin.server import Admin
from countersign.admin.view import View
from countersign.edge.addresses import TcpAddress
from countersign.policy.workload import Workload
from countersign.snapshot import Snapshot
from countersign.tokens.keyring import SourceState

ANY: Final = TcpAddress("127.0.0.1", 0)
JSON: Final = "application/json"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


def ask(port: int, path: str, method: str = "GET", body: str | None = None, **headers: str) -> Answer:
    """One request; the names of headers are written with ``_``."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    lines = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request(method, path, body, lines)
        response = connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        return Answer(status=response.status, headers=found, text=response.read().decode())
    finally:
        connection.close()


def api(
    snapshot: Callable[[], Snapshot],
    *,
    keys: Sequence[SourceState] = (),
    denials: Callable[[], Sequence[Denial]] = tuple,
    workloads: Sequence[Workload] = (),
    configuration: str = "",
    address: TcpAddress = ANY,
    seconds: float = 10.0,
) -> Admin:
    """The API of a process with these."""
    view = View(
        snapshot=snapshot,
        key_states=lambda: tuple(keys),
        denials=denials,
        workloads=lambda: workloads,
        configuration=configuration,
    )
    return Admin(address, view, seconds=seconds)
