"""A service of docker-compose.yml, run from the built image: its root read-only, its user without privileges, as PID 1.

What a container runtime does, with util-linux: namespaces of mounts and processes, bind mounts, chroot. The network is
the caller's: `make image-test` runs all of it in one network namespace with a loopback of its own.
"""

import json
import os
import shlex
import signal
import subprocess
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from countersign.mesh.process import Child, wait_until

STORE: Final = Path(os.environ.get("COUNTERSIGN_IMAGE_STORE", ""))
_WITHIN: Final = 20.0  # seconds


def buildah(*words: str) -> str:
    """What buildah prints about our store."""
    store = ("--storage-driver", "vfs", "--root", str(STORE / "storage"), "--runroot", str(STORE / "run"))
    result = subprocess.run(["buildah", *store, *words], capture_output=True, text=True, timeout=300, check=True)  # noqa: S607 (Debian's)
    return result.stdout.strip()


@dataclass(frozen=True, slots=True)
class Image:
    """A built image: where its files are, and its configuration as Docker has it (`Entrypoint`, `Env`, ...)."""

    root: Path
    config: Mapping[str, Any]

    @property
    def user(self) -> tuple[int, int]:
        """Numbers of the user and of its group."""
        uid, _, gid = self.config["User"].partition(":")
        return int(uid), int(gid)

    @property
    def packages(self) -> Path:
        """Where its Python packages are."""
        (found,) = self.root.glob("opt/countersign/lib/python3*/site-packages")
        return found


def configuration(tag: str) -> Mapping[str, Any]:
    """The whole record of an image: `config`, and `rootfs` with its layers."""
    record: Mapping[str, Any] = json.loads(buildah("inspect", "--type", "image", tag))["Docker"]
    return record


class Container:
    """One service, from its start to `stop`.

    ``volumes`` maps paths inside to directories or files outside; those of ``read_only`` cannot be written.
    """

    def __init__(
        self,
        image: Image,
        name: str,
        command: list[str],
        volumes: Mapping[str, Path],
        directory: Path,
        read_only: Collection[str] = (),
    ) -> None:
        self._image = image
        root = image.root
        lines = [f"mount --bind {root} {root}", f"mount -o remount,bind,ro {root}"]
        for point in ("tmp", "proc", "dev", "etc"):
            (root / point).mkdir(exist_ok=True)
        for inside, outside in volumes.items():
            target = root / inside.removeprefix("/")
            target.parent.mkdir(parents=True, exist_ok=True)  # as a runtime makes them, before the root is read-only
            if outside.is_dir():
                target.mkdir(exist_ok=True)
            else:
                target.touch()
            lines.append(f"mount --bind {shlex.quote(str(outside))} {target}")
            if inside in read_only:
                lines.append(f"mount -o remount,bind,ro {target}")
        lines += [
            f"mount -t tmpfs tmpfs {root}/tmp",  # noqa: S108 (inside the container)
            f"mount -t proc proc {root}/proc",
            f"mount --bind /dev {root}/dev",
        ]
        words = shlex.join([*self._inside(), *image.config["Entrypoint"], *(command or image.config["Cmd"])])
        script = " && ".join([*lines, f"exec chroot --userspec={image.config['User']} --groups= {root} {words}"])
        namespaces = ("--mount", "--propagation", "private", "--pid", "--fork", "--kill-child=SIGKILL")
        self.child = Child(
            name,
            ["unshare", *namespaces, "setpriv", "--no-new-privs", "sh", "-c", script],
            directory=directory,
        )
        self.pid = wait_until(f"starting {name}", self._first, within=_WITHIN, child=self.child)

    def _inside(self) -> list[str]:
        return ["/usr/bin/env", "-i", *self._image.config["Env"]]

    def _first(self) -> int | None:
        """Its PID 1, in our numbers."""
        outer = self.child.pid
        text = Path(f"/proc/{outer}/task/{outer}/children").read_text(encoding="ascii").split()
        return int(text[0]) if text else None

    def execute(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command beside it, as its health check runs."""
        uid, gid = self._image.user
        enter = ["nsenter", "--target", str(self.pid), "--mount", "--pid", "--root", "--wd=/"]
        enter += [f"--setgid={gid}", f"--setuid={uid}"]
        return subprocess.run(
            [*enter, *self._inside(), *words], capture_output=True, text=True, timeout=_WITHIN, check=False
        )

    def wait_healthy(self, check: list[str]) -> None:
        """Return once a health check of compose (`CMD` and its words, or `CMD-SHELL` and a line) succeeds."""
        how, *words = check
        words = ["/bin/sh", "-c", *words] if how == "CMD-SHELL" else words
        wait_until(
            f"health of {self.child.name}",
            lambda: self.execute(*words).returncode == 0 or None,
            within=_WITHIN,
            child=self.child,
        )

    def ended(self) -> int:
        """Wait for its exit code."""
        return wait_until(f"end of {self.child.name}", lambda: self.child.exit_code, within=_WITHIN)

    def stop(self) -> int:
        """SIGTERM to its PID 1; give the exit code."""
        if self.child.exit_code is None:
            os.kill(self.pid, signal.SIGTERM)
        return self.ended()
