"""Countersign as a gateway or a mesh asks it, over mTLS, and what it wrote down about that."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from countersign.mesh.process import wait_until

from tests.cli.serving import Serve, free_port
from tests.edge.tls.pki import new_authority, times, write
from tests.support.certificates import Issued, issue

HOST: Final = "countersign.countersign.svc.cluster.local"
SPIFFE_ID: Final = "spiffe://cluster.local/ns/countersign/sa/countersign"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """``port``: of the checks. ``authority``: who signs for it, and for whoever asks."""

    serve: Serve
    port: int
    authority: Issued
    records: Path

    def record(self, number: int) -> dict[str, Any]:
        """The decision so manieth, from 1."""
        lines = wait_until("recording", lambda: self._lines(number), within=10, child=self.serve.child)
        found: dict[str, Any] = json.loads(lines[number - 1])
        return found

    def _lines(self, number: int) -> list[str] | None:
        lines = self.records.read_text().splitlines() if self.records.exists() else []
        return lines if len(lines) >= number else None


@contextlib.contextmanager
def countersign(directory: Path, policy: str, caller: str) -> Iterator[Asked]:
    """`countersign serve`, with the certificate that the manifests promise, for one caller."""
    authority, port = new_authority(), free_port()
    policies, files, records = directory / "policies", directory / "tls", directory / "decisions.jsonl"
    for each in (policies, files):
        each.mkdir()
    (policies / "p.yaml").write_text(policy)
    write(files, issue(SPIFFE_ID, by=authority, dns=[HOST], **times()), authority)
    names = {"cert": "tls.crt", "key": "tls.key", "client-ca": "ca.crt"}
    tls = [word for flag, name in names.items() for word in (f"--tls-{flag}", str(files / name))]
    more = ("--namespace", "elsewhere", "--decision-log", f"file:{records}", "--tls-allow-client", caller)
    with Serve(directory, policies, "--listen", f"127.0.0.1:{port}", *tls, *more) as serve:
        wait_until("being ready", lambda: serve.ready() == "ok" or None, within=20, child=serve.child)
        yield Asked(serve=serve, port=port, authority=authority, records=records)
