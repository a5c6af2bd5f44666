"""What `--keep` prints: commands to try by hand, which work as they are printed."""

import shlex
from collections.abc import Iterator

from countersign.mesh.mesh import Mesh
from countersign.mesh.scenario import AUDITOR_TOKEN, GUEST_TOKEN, STAFF_TOKEN

_CURL = "curl -i --noproxy '*'"


def commands(mesh: Mesh) -> Iterator[tuple[str, str]]:
    """Pairs of what a command shows and the command; the tokens are good for an hour."""
    home = mesh.directory / "tokens"
    home.mkdir(mode=0o700, exist_ok=True)
    bearer = {}
    for name, token in (("alice", STAFF_TOKEN), ("carol", AUDITOR_TOKEN), ("mallory", GUEST_TOKEN)):
        file = home / name
        file.touch(mode=0o600)
        file.write_text(mesh.token(token), encoding="ascii")
        bearer[name] = f'-H "authorization: Bearer $(cat {shlex.quote(str(file))})"'
    sleep, edge, inbound = (f"127.0.0.1:{mesh.port(name)}" for name in ("sleep", "edge", "httpbin"))
    batch = mesh.certificates / "batch"
    files = " ".join(
        f"--{option} {shlex.quote(str(batch / name))}"
        for option, name in (("cert", "tls.crt"), ("key", "tls.key"), ("cacert", "ca.crt"))
    )
    yield "sleep reads (200)", f"{_CURL} http://{sleep}/headers"
    yield "sleep deletes (403)", f"{_CURL} -X DELETE http://{sleep}/headers"
    yield "alice, of staff, through the edge (200)", f"{_CURL} {bearer['alice']} http://{edge}/headers"
    yield "carol, an auditor, through the edge (200)", f"{_CURL} {bearer['carol']} http://{edge}/reports/2026"
    yield "mallory, a guest, through the edge (403)", f"{_CURL} {bearer['mallory']} http://{edge}/headers"
    yield (
        "batch with its own certificate, straight to httpbin's sidecar (403)",
        f"{_CURL} {files} --resolve httpbin:{mesh.port('httpbin')}:127.0.0.1 https://httpbin:{mesh.port('httpbin')}/ip",
    )
    yield "plaintext, straight to httpbin's sidecar (403)", f"{_CURL} http://{inbound}/headers"
    log = shlex.quote(str(mesh.envoys["httpbin"].child.output))
    yield "every decision, with its reason", f"tail -n 5 {log}"
