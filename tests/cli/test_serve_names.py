"""`countersign serve` where no name server answers: the system's own resolver asks one that is silent."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from countersign.mesh.process import Child, wait_until

NAMESPACES = ["unshare", "--user", "--map-root-user", "--net", "--mount"]
APART = 'ip link set lo up && mount --bind "$0" /etc/resolv.conf && exec "$@"'
SILENT = """
import os, socket, sys
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 53))
server.set_inheritable(True)  # whoever comes next keeps it, and reads nothing
os.execv(sys.executable, [sys.executable, "-m", "countersign", *sys.argv[1:]])
"""
ISSUERS = 40  # more than the event loop has threads
RULES = "".join(
    f'    - {{issuer: "https://{number}.test", jwksUri: "http://{number}.test/jwks", timeout: 1s}}\n'
    for number in range(ISSUERS)
)
POLICY = f"""\
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: users, namespace: apps}}
spec:
  jwtRules:
{RULES}"""
LATE = "no whole answer within 1 s: still resolving the name of the host"


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Child]:
    """The process, once each of its issuers' names has been asked for in vain."""
    missing = [tool for tool in ("unshare", "ip", "mount") if shutil.which(tool) is None]
    if missing or subprocess.run([*NAMESPACES, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no namespaces of one's own here: they need util-linux and iproute2, and a kernel that gives them")
    resolv = tmp_path / "resolv.conf"
    resolv.write_text("nameserver 127.0.0.1\n")
    (tmp_path / "policy.yaml").write_text(POLICY)
    flags = ["--policies", f"{tmp_path}/policy.yaml", "--listen", f"unix:{tmp_path}/authz.sock", "--namespace", "apps"]
    apart = [*NAMESPACES, "sh", "-c", APART, str(resolv), sys.executable, "-c", SILENT]
    child = Child("serve", [*apart, "serve", *flags], directory=tmp_path)
    try:
        wait_until("giving up", lambda: log(child).count(LATE) == ISSUERS or None, within=20, child=child)
        yield child
    finally:
        child.stop()


def log(child: Child) -> str:
    return child.log.read_text()


def test_names_that_nobody_resolves_hold_up_neither_a_reload_nor_a_stop(serve: Child, tmp_path: Path) -> None:
    (tmp_path / "new.yaml").write_text(POLICY.replace("users", "others"))
    (tmp_path / "new.yaml").replace(tmp_path / "policy.yaml")

    wait_until("reloading", lambda: "generation 2" in log(serve) or None, within=5, child=serve)
    assert serve.stop(grace=5) == 0
