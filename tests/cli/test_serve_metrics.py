"""`/metrics` of `countersign serve`: every answer once, of one process or several, and after one of them has ended."""

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest
from countersign.core.identity import XFCC_HEADER
from countersign.edge.addresses import UnixAddress
from countersign.mesh.process import wait_until
from prometheus_client.parser import text_string_to_metric_families

from tests.cli.serving import Serve
from tests.edge.probing import ask
from tests.edge.serving import READERS, call, reason, request

THIEF: Final = "By=spiffe://cluster.local/ns/apps/sa/httpbin;Hash=00;URI=spiffe://cluster.local/ns/apps/sa/thief"
READ: Final = request().SerializeToString()
CHECKS: Final = (
    (READ, "allow-rule-matched"),
    (request(method="DELETE").SerializeToString(), "no-allow-rule-matched"),
    (request(headers={XFCC_HEADER: THIEF}).SerializeToString(), "peer-mismatch"),
    (b"\xff", "request-malformed"),
)


def scraped(serve: Serve) -> Mapping[tuple[str, ...], float]:
    """Every sample that is not 0, by name and label values."""
    status, text = ask(serve.port, "/metrics")
    assert status == 200
    families = text_string_to_metric_families(f"{text}\n")
    samples = [sample for family in families for sample in family.samples]
    return {(each.name, *each.labels.values()): each.value for each in samples if each.value}


def by_reason(serve: Serve) -> Mapping[str, float]:
    return {series[2]: value for series, value in scraped(serve).items() if series[0] == "countersign_checks_total"}


@pytest.mark.parametrize("transport", ["native", "grpcio"])
def test_every_answer_is_counted_once_by_its_reason_that_of_another_peer_too(tmp_path: Path, transport: str) -> None:
    policies = tmp_path / "p.yaml"
    policies.write_text(READERS)
    with Serve(tmp_path, policies, "--namespace", "apps", "--transport", transport) as serve:
        for payload, expected in CHECKS * 2:
            assert reason(call(serve.address, payload)) == expected
        assert by_reason(serve) == {expected: 2 for _, expected in CHECKS}
        found = scraped(serve)
    assert found["countersign_answers_remembered_total",] == 3  # all but the one that is no question
    assert found["countersign_policy_decisions_total", "allow", "ns[apps]-policy[readers]-rule[0]"] == 2
    assert found["countersign_policy_generation",] == 1
    assert found["countersign_policy_loads_total", "good"] == 1
    assert found["countersign_processes_serving",] == 1


def test_workers_are_counted_together_and_what_a_dead_one_counted_stays(tmp_path: Path) -> None:
    policies = tmp_path / "p.yaml"
    policies.write_text(READERS)
    with Serve(tmp_path, policies, "--namespace", "apps", "--workers", "2") as serve:
        wait_until("serving", lambda: serve.ready() == "ok" or None, within=20, child=serve.child)
        addresses = [UnixAddress(str(tmp_path / f"authz-{number}.sock")) for number in range(2)]
        for address in addresses:
            for payload, expected in CHECKS:
                assert reason(call(address, payload)) == expected
        twice = {expected: 2.0 for _, expected in CHECKS}
        wait_until("counting", lambda: by_reason(serve) == twice or None, within=10, child=serve.child)
        assert scraped(serve)["countersign_processes_serving",] == 2

        (pid,) = [line.rpartition(" ")[2] for line in serve.log.splitlines() if "worker 0 (" in line]
        os.kill(int(pid), signal.SIGKILL)
        serve.wait_for_log("worker 0 (unix:" + str(tmp_path / "authz-0.sock") + ") has ended")
        wait_until("serving", lambda: serve.log.count("worker 0 (") > 2 or None, within=20, child=serve.child)
        assert reason(call(addresses[0], READ)) == "allow-rule-matched"
        more = twice | {"allow-rule-matched": 3.0}
        wait_until("counting", lambda: by_reason(serve) == more or None, within=10, child=serve.child)
