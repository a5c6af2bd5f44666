"""Countersign itself, as its users start it: the real command in a process of its own."""

import http.client
import socket
import sys
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from countersign.mesh.certificates import TRUST_DOMAIN
from countersign.mesh.process import Child, MeshError, wait_until

_READY_WITHIN: Final = 15.0  # seconds
_PROBE_TIMEOUT: Final = 2.0
_MAX_SOCKET_PATH: Final = 107  # bytes of sockaddr_un.sun_path on Linux, without its NUL


class Countersign:
    """`countersign serve` on a unix socket, from entering the context to leaving it; can be stopped and started."""

    def __init__(self, listen: Path, policies: Path, directory: Path) -> None:
        if len(bytes(listen)) > _MAX_SOCKET_PATH:
            raise MeshError(f"{listen}: too long for a unix socket; set TMPDIR to a shorter directory")
        self._listen = listen
        self._policies = policies
        self._directory = directory
        self.child: Child | None = None
        self._probes = 0

    def __enter__(self) -> Self:
        """Start it. `wait_ready` waits, so that other parts can start meanwhile."""
        self._probes = _free_port()
        command = [sys.executable, "-P", "-m", "countersign", "serve"]  # -P: nothing from the current directory
        command += ["--listen", f"unix:{self._listen}", "--policies", str(self._policies)]
        command += ["--trust-domain", TRUST_DOMAIN, "--root-namespace", "istio-system"]
        command += ["--probes", f"127.0.0.1:{self._probes}", "--admin", "off"]
        self.child = Child("countersign", command, directory=self._directory)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the process; the socket answers no more."""
        if self.child is not None:
            self.child.stop()

    def wait_ready(self) -> None:
        """Return once `/readyz` says so and the socket accepts."""
        wait_until("starting countersign", self._is_ready, within=_READY_WITHIN, child=self.child)
        wait_until("listening", self._accepts, within=_READY_WITHIN, child=self.child)

    def _accepts(self) -> bool | None:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self._listen)) == 0 or None

    def _is_ready(self) -> bool | None:
        connection = http.client.HTTPConnection("127.0.0.1", self._probes, timeout=_PROBE_TIMEOUT)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == http.HTTPStatus.OK or None
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
