"""Which kubeconfigs are used, and which are refused: policies come from a server that has proven who it is."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from countersign.edge.kubernetes.address import Cluster, ClusterError
from countersign.edge.kubernetes.connect import connect

SOUND: dict[str, Any] = {
    "clusters": [{"name": "c", "cluster": {"server": "https://api.test:6443"}}],
    "users": [{"name": "u", "user": {"token": "t"}}],
    "contexts": [
        {"name": "x", "context": {"cluster": "c", "user": "u"}},
        {"name": "y", "context": {"cluster": "d", "user": "u"}},
    ],
    "current-context": "x",
}


def with_cluster(**cluster: object) -> str:
    return json.dumps({**SOUND, "clusters": [{"name": "c", "cluster": cluster}]})


def base_url(text: str, directory: Path, context: str = "") -> str:
    file = directory / "kubeconfig"
    file.write_text(text)
    client = connect(Cluster(kubeconfig=file, context=context))
    asyncio.run(client.aclose())
    return str(client.base_url)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (json.dumps(SOUND), "https://api.test:6443"),
        (with_cluster(server="http://127.0.0.1:8001"), "http://127.0.0.1:8001"),  # kubectl proxy
        (with_cluster(server="http://[::1]:8001"), "http://[::1]:8001"),
    ],
)
def test_a_server_is_asked_over_tls_or_on_this_machine(tmp_path: Path, text: str, expected: str) -> None:
    assert base_url(text, tmp_path).rstrip("/") == expected


@pytest.mark.parametrize(
    ("text", "context", "says"),
    [
        (with_cluster(server="http://api.test:8080"), "", "plaintext"),
        (with_cluster(server="https://api.test", **{"insecure-skip-tls-verify": True}), "", "insecure-skip-tls-verify"),
        (with_cluster(server="https://api.test", **{"certificate-authority": "/none"}), "", "FileNotFoundError"),
        (json.dumps({**SOUND, "contexts": [{"name": "x", "context": {"cluster": "c"}}]}), "", "`x` names no user"),
        (json.dumps({**SOUND, "current-context": None}), "", "No current context"),
        (json.dumps(SOUND), "z", "Context 'z' not found"),
        (json.dumps(SOUND), "y", "KeyError: 'd'"),
        ("{}", "", "KeyError: 'clusters'"),
        ("[", "", "ParserError"),
        ("", "", "AttributeError"),
        (json.dumps({**SOUND, "clusters": 1}), "", "TypeError"),
        (with_cluster(server=1), "", "ValidationError"),
    ],
)
def test_what_cannot_be_trusted_or_read_is_refused(tmp_path: Path, text: str, context: str, says: str) -> None:
    with pytest.raises(ClusterError, match=says):
        base_url(text, tmp_path, context)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="not found"):
        connect(Cluster(kubeconfig=tmp_path / "none"))


MANY = """
import sys, threading
from pathlib import Path
from countersign.edge.kubernetes.address import Cluster
from countersign.edge.kubernetes.connect import connect
sys.setswitchinterval(1e-6)
start = threading.Barrier(8)
def go():
    start.wait()
    connect(Cluster(kubeconfig=Path(sys.argv[1])))
threads = [threading.Thread(target=go) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""


def test_many_threads_may_connect_at_once(tmp_path: Path) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text(with_cluster(server="http://127.0.0.1:9"))
    for _ in range(5):
        result = subprocess.run([sys.executable, "-c", MANY, str(file)], capture_output=True, timeout=60, check=False)
        assert (result.returncode, result.stderr) == (0, b"")
