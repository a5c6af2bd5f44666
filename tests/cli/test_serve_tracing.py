"""`countersign serve --tracing`: each process sends its spans, and one that does not trace imports nothing for it."""

import subprocess
import sys
from pathlib import Path

import pytest
from countersign.edge.addresses import UnixAddress
from countersign.mesh.process import wait_until

from tests.cli.serving import Serve
from tests.edge.serving import READERS, call, request
from tests.tracing.receiving import Receiver, attributes
from tests.tracing.test_tracer import PARENT, SAMPLED, UNSAMPLED


@pytest.mark.parametrize("workers", [1, 2])
def test_each_process_sends_the_spans_of_its_sampled_checks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    policies = tmp_path / "p.yaml"
    policies.write_text(READERS)
    sampled = request(headers={"traceparent": SAMPLED}).SerializeToString()
    unsampled = request(method="DELETE", headers={"traceparent": UNSAMPLED}).SerializeToString()
    with Receiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
        flags = ("--namespace", "apps", "--tracing", "otlp", "--workers", str(workers))
        with Serve(tmp_path, policies, *flags) as serve:
            wait_until("being ready", lambda: serve.ready() == "ok" or None, within=20, child=serve.child)
            for name in ["authz-0.sock", "authz-1.sock"] if workers > 1 else ["authz.sock"]:
                for payload in (sampled, unsampled):
                    call(UnixAddress(str(tmp_path / name)), payload)
        spans = receiver.spans  # the process has ended, and has sent them before
    assert [(span.parent_span_id.hex(), attributes(span)["countersign.decision"]) for span in spans] == [
        (PARENT, "ALLOW")
    ] * workers


def test_a_receiver_that_is_away_costs_no_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policies = tmp_path / "p.yaml"
    policies.write_text(READERS)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    with Serve(tmp_path, policies, "--namespace", "apps", "--tracing", "otlp") as serve:
        wait_until("being ready", lambda: serve.ready() == "ok" or None, within=20, child=serve.child)
        answer = call(serve.address, request(headers={"traceparent": SAMPLED}).SerializeToString())
        assert answer.HasField("ok_response")
        wait_until("being tried", lambda: "opentelemetry" in serve.log or None, within=10, child=serve.child)
    assert serve.child.exit_code == 0
    assert "Traceback" not in serve.log


def test_without_tracing_nothing_of_it_is_imported() -> None:
    code = (
        "import sys, countersign.app, countersign.cli.serve, countersign.workers.worker;"
        "sys.exit(any(name.startswith('opentelemetry') or name.endswith('.tracer') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
