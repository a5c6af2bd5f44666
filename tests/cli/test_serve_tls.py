"""`countersign serve` over mTLS, and SIGHUP: what became of the files is in force and said at once."""

import os
import signal
from pathlib import Path

import grpc
import pytest
from countersign.edge.addresses import TcpAddress
from countersign.mesh.process import wait_until

from tests.cli.serving import Serve, consecutive_ports, free_port
from tests.edge.serving import READERS, reason
from tests.edge.tls.pki import ENVOY, client_of, flags, key_pem, new_authority, server_of, swap
from tests.edge.tls.test_callers import ask
from tests.support.certificates import Issued


def _hang_up(serve: Serve) -> None:
    os.kill(serve.child.pid, signal.SIGHUP)


@pytest.mark.parametrize("workers", [1, 2])
def test_sighup_reads_certificates_again_and_says_what_came_of_it(tmp_path: Path, workers: int) -> None:
    old, new = new_authority("Old CA"), new_authority("New CA")
    policies, files, port = tmp_path / "p.yaml", tmp_path / "tls", consecutive_ports(workers)
    policies.write_text(READERS)
    swap(files, "v1", server_of(old), old)
    more = ("--namespace", "apps", "--listen", f"127.0.0.1:{port}", "--workers", str(workers))

    def answers(authority: Issued) -> bool | None:
        try:
            each = [
                ask(TcpAddress("127.0.0.1", port + n), client_of(authority, ENVOY), authority) for n in range(workers)
            ]
        except grpc.RpcError:
            return None
        return [reason(one) for one in each] == ["allow-rule-matched"] * workers

    with Serve(tmp_path, policies, *more, *flags(files)) as serve:
        wait_until("being ready", lambda: serve.ready() == "ok" or None, within=20, child=serve.child)
        _hang_up(serve)
        serve.wait_for_log("the TLS certificate is unchanged, until ")
        assert answers(old)

        (files / "..v1" / "tls.key").write_bytes(key_pem(server_of(old)))
        serve.wait_for_log("TLS certificate not loaded, the one until")
        assert serve.log.count("TLS certificate not loaded") == 1
        _hang_up(serve)
        wait_until("being told again", lambda: serve.log.count("TLS certificate not loaded") == 2 or None, within=10)
        assert answers(old)

        swap(files, "v2", server_of(new), new)
        _hang_up(serve)
        assert wait_until("the new ones", lambda: answers(new), within=10, child=serve.child)
        assert answers(old) is None


@pytest.mark.parametrize(("verbosity", "told"), [("INFO", True), (None, False)])
def test_why_a_handshake_fails_is_logged_where_grpcio_is_asked_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verbosity: str | None, *, told: bool
) -> None:
    monkeypatch.delenv("GRPC_VERBOSITY", raising=False)
    if verbosity is not None:
        monkeypatch.setenv("GRPC_VERBOSITY", verbosity)
    ours, theirs, port = new_authority("Our CA"), new_authority("Their CA"), free_port()
    policies, files = tmp_path / "p.yaml", tmp_path / "tls"
    policies.write_text(READERS)
    swap(files, "v1", server_of(ours), ours)
    with Serve(tmp_path, policies, "--namespace", "apps", "--listen", f"127.0.0.1:{port}", *flags(files)) as serve:
        address = TcpAddress("127.0.0.1", port)
        wait_until("being ready", lambda: serve.ready() == "ok" or None, within=20, child=serve.child)
        with pytest.raises(grpc.RpcError):
            ask(address, client_of(theirs, ENVOY), ours)
        if told:
            serve.wait_for_log("CERTIFICATE_VERIFY_FAILED")
        assert reason(ask(address, client_of(ours, ENVOY), ours)) == "allow-rule-matched"
        assert ("CERTIFICATE_VERIFY_FAILED" in serve.log) is told
