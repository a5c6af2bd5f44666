"""A cluster for a test: a small API server, or with ``COUNTERSIGN_APISERVER`` (`make kubernetes`) the real one too."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.serving import free_port
from tests.kubernetes.real import RealApiServer, kubeconfig
from tests.kubernetes.relay import Relay
from tests.kubernetes.small import TOKEN, SmallApiServer


@dataclass(frozen=True)
class Cluster:
    """An API server, the wire to it, and the files with which it is asked."""

    api: SmallApiServer | RealApiServer
    wire: Relay
    token: Path
    kubeconfig: Path

    @property
    def url(self) -> str:
        """As the flag says it."""
        return f"kubernetes://?kubeconfig={self.kubeconfig}"


def reached(api: SmallApiServer | RealApiServer, wire: Relay, directory: Path) -> Cluster:
    """The cluster behind a wire."""
    token, file = directory / "token", directory / "kubeconfig"
    token.write_text(TOKEN)
    file.write_text(kubeconfig(f"{api.scheme}://127.0.0.1:{wire.port}", api.ca_file, {"tokenFile": str(token)}))
    return Cluster(api, wire, token, file)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster whose API server does what a test asks of it."""
    with SmallApiServer(free_port()) as api, Relay(free_port(), api.port) as wire:
        yield reached(api, wire, tmp_path)


@pytest.fixture(params=["small", "real"])
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cluster]:
    """Either of them."""
    if request.param == "small":
        yield request.getfixturevalue("small")
        return
    program, etcd = os.environ.get("COUNTERSIGN_APISERVER", ""), shutil.which("etcd")
    if not program or etcd is None:
        pytest.skip("no Kubernetes API server here: `make kubernetes` builds one, with Go and Debian's etcd-server")
    directory = tmp_path / "cluster"
    directory.mkdir()
    with (
        RealApiServer(free_port(), program, etcd, directory) as api,
        Relay(free_port(), api.port) as wire,
    ):
        yield reached(api, wire, tmp_path)
