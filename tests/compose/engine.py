"""A container engine without Docker: Podman's service behind Docker's API, all its state in one directory.

The network is the caller's: `make compose-test` gives it a namespace of its own, so that bridges, published ports and
firewall rules stay there. Containers are in the caller's control groups (``cgroups = "disabled"``): no limits are asked
for, and a container cannot leave those that count here.
"""

import json
import os
import resource
import subprocess
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from countersign.mesh.process import Child, wait_until

_WITHIN: Final = 60.0  # seconds, for one command of Podman
_BETWEEN_CHECKS: Final = 0.5  # seconds
_CONFIGURATION: Final = """\
[containers]
cgroups = "disabled"
cgroupns = "host"
default_sysctls = []
default_ulimits = ["nofile={files}:{files}", "nproc=4096:4096"]
log_driver = "k8s-file"
[engine]
runtime = "crun"
cgroup_manager = "cgroupfs"
events_logger = "file"
static_dir = "{directory}/static"
volume_path = "{directory}/volumes"
[network]
network_backend = "netavark"
network_config_dir = "{directory}/networks"
"""


class Engine:
    """The engine, from entering the context to leaving it, and the timer of its health checks.

    Podman leaves that timer to systemd. Where there is none, a thread runs what the timer would: ``podman healthcheck
    run``, for each container that is up. Results, counts and states are Podman's.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.host = f"unix://{directory}/docker.sock"
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        configuration = directory / "containers.conf"
        configuration.write_text(_CONFIGURATION.format(files=files, directory=directory))
        self._environment = {**os.environ, "CONTAINERS_CONF": str(configuration)}
        self._stopped = threading.Event()
        self._timer = threading.Thread(target=self._check_health, name="health checks")

    def _command(self, *words: str) -> list[str]:
        places = {"--root": "storage", "--runroot": "run", "--tmpdir": "tmp"}
        flags = [word for flag, name in places.items() for word in (flag, str(self.directory / name))]
        return ["podman", *flags, "--storage-driver", "overlay", *words]

    def podman(self, *words: str, check: bool = True) -> str:
        """What a command prints. Raise `subprocess.CalledProcessError` if it fails."""
        result = subprocess.run(
            self._command(*words), env=self._environment, capture_output=True, text=True, timeout=_WITHIN, check=check
        )
        return result.stdout

    def __enter__(self) -> Self:
        service = self._command("system", "service", "--time=0", self.host)
        variable = f"CONTAINERS_CONF={self._environment['CONTAINERS_CONF']}"
        self._service = Child("engine", ["/usr/bin/env", variable, *service], directory=self.directory)
        socket = self.directory / "docker.sock"
        wait_until("the engine's socket", lambda: socket.is_socket() or None, within=_WITHIN, child=self._service)
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._timer.join()
        self.podman("rm", "--all", "--force", "--time", "2", check=False)
        self._service.stop()
        # Of its mounts one may be left, and then its files could not be removed.
        self.podman("unmount", "--all", "--force", check=False)

    def _check_health(self) -> None:
        while not self._stopped.wait(_BETWEEN_CHECKS):
            for container in self._running():
                self.podman("healthcheck", "run", container, check=False)  # it fails for who has no check

    def _running(self) -> list[str]:
        listed: list[dict[str, Any]] = json.loads(self.podman("ps", "--format", "json", check=False) or "[]")
        return [each["Id"] for each in listed]
