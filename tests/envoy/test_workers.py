"""The real Envoy with `envoy/workers.yaml`, and one of its two workers killed, hung, or both gone, under load.

``pytest -rP`` shows how many requests each case cost.
"""

import asyncio
import contextlib
import datetime as dt
import os
import re
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from countersign.mesh.certificates import write_certificates
from countersign.mesh.envoy import Envoy
from countersign.mesh.process import wait_until
from countersign.mesh.relocate import Places
from countersign.mesh.upstream import upstream

from tests.cli.serving import Serve
from tests.envoy.storm import Load, Sample, p99, statuses

pytestmark = pytest.mark.envoy

CONFIGURATION: Final = Path(__file__).parents[2] / "envoy" / "workers.yaml"
POLICY: Final = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: good, namespace: apps}
spec:
  rules: [{when: [{key: "request.headers[authorization]", values: [Bearer good]}]}]
"""
RATE: Final = 200  # good requests a second, and as many that are to be denied
SECONDS: Final = 4.0
ANY: Final = ("127.0.0.1", 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """A sidecar, and its two workers."""

    serve: Serve
    envoy: Envoy

    def pids(self, number: int) -> list[int]:
        """The processes that have been a worker."""
        said = rf"worker {number} \(.*\) serves, process (\d+)\n"
        return [int(pid) for pid in re.findall(said, self.serve.log)]

    def signal(self, number: int, what: signal.Signals) -> None:
        """Send a worker a signal."""
        os.kill(self.pids(number)[-1], what)

    def load(self, *events: tuple[float, Callable[[], None]]) -> tuple[list[Sample], list[Sample]]:
        """Good requests and bad ones, with events at so many seconds."""
        return asyncio.run(self._load(events))

    async def _load(self, events: tuple[tuple[float, Callable[[], None]], ...]) -> tuple[list[Sample], list[Sample]]:
        good, bad = (Load(self.envoy.port("inbound")) for _ in range(2))
        for seconds, event in events:
            asyncio.get_running_loop().call_later(seconds, event)
        count = int(SECONDS * RATE)
        samples = await asyncio.gather(good.run(lambda: "good", RATE, count), bad.run(lambda: "bad", RATE, count))
        await good.close()
        await bad.close()
        return samples


@contextlib.contextmanager
def running(directory: Path, change: Callable[[Any], None] = lambda _: None) -> Iterator[Parts]:
    """Two workers behind a sidecar of the committed configuration, or of one that ``change`` has changed."""
    run, certificates, policies = (directory / name for name in ("run", "certs", "policies"))
    for each in (run, certificates, policies):
        each.mkdir()
    write_certificates(certificates, dt.datetime.now(dt.UTC))
    (policies / "p.yaml").write_text(POLICY)
    document = yaml.safe_load(CONFIGURATION.read_text())
    change(document)
    changed = directory / "workers.yaml"
    changed.write_text(yaml.safe_dump(document))
    with contextlib.ExitStack() as parts:
        application = parts.enter_context(upstream("127.0.0.1", 0))
        serve = parts.enter_context(Serve(run, policies, "--workers", "2"))
        wait_until("being ready", lambda: serve.ready() == "ok" or None, within=20, child=serve.child)
        places = Places(
            addresses={"127.0.0.1:9901": ANY, "0.0.0.0:15006": ANY, "upstream:8080": ("127.0.0.1", application.port)},
            paths={"/run/countersign": run, "/run/mesh/certs": certificates},
        )
        envoy = parts.enter_context(Envoy(changed, places, directory))
        envoy.wait_ready()
        yield Parts(serve=serve, envoy=envoy)


def _endpoints_only(document: Any) -> None:
    """Leave nothing of what helps Envoy past a worker that is gone."""
    for chain in document["static_resources"]["listeners"][0]["filter_chains"]:
        for filter_ in chain["filters"][0]["typed_config"]["http_filters"]:
            filter_["typed_config"].get("grpc_service", {}).pop("retry_policy", None)
    for name in ("health_checks", "outlier_detection"):
        document["static_resources"]["clusters"][1].pop(name)


def _said(what: str, good: list[Sample], bad: list[Sample]) -> None:
    print(f"{what}: good {statuses(good)}, bad {statuses(bad)}, p99 of good {p99(good) * 1000:.0f} ms")  # noqa: T201


def test_a_worker_that_is_killed_costs_next_to_nothing(tmp_path: Path) -> None:
    with running(tmp_path) as parts:
        good, bad = parts.load((1.0, lambda: parts.signal(0, signal.SIGKILL)))
        _said("one of two killed", good, bad)

        assert set(statuses(bad)) <= {403, 503}  # never allowed, whoever is gone
        assert set(statuses(good)) <= {200, 503}
        assert statuses(good + bad).get(503, 0) < 0.03 * len(good + bad)
        wait_until("another", lambda: len(parts.pids(0)) == 2 or None, within=20)


def test_without_retries_and_health_checks_it_costs_what_was_sent_there_and_allows_nothing(tmp_path: Path) -> None:
    with running(tmp_path, _endpoints_only) as parts:
        good, bad = parts.load((1.0, lambda: parts.signal(0, signal.SIGKILL)))
        _said("one of two killed, endpoints only", good, bad)

        assert set(statuses(bad)) <= {403, 503}
        assert set(statuses(good)) <= {200, 503}
        assert statuses(good + bad)[503] > 0.03 * len(good + bad)


def test_a_worker_that_hangs_is_passed_by(tmp_path: Path) -> None:
    with running(tmp_path) as parts:
        try:
            good, bad = parts.load((0.5, lambda: parts.signal(0, signal.SIGSTOP)))
        finally:
            parts.signal(0, signal.SIGCONT)
        _said("one of two hung", good, bad)
        late = [sample for sample in good + bad if sample.sent > good[0].sent + SECONDS - 1]

        assert set(statuses(bad)) <= {403, 503}
        assert set(statuses(good)) <= {200, 503}
        assert statuses(late).get(503, 0) < 0.1 * len(late)


def test_with_every_worker_gone_nothing_is_allowed_until_one_is_back(tmp_path: Path) -> None:
    with running(tmp_path) as parts:

        def kill_both() -> None:
            parts.signal(0, signal.SIGKILL)
            parts.signal(1, signal.SIGKILL)

        good, bad = parts.load((0.5, kill_both))
        _said("both killed", good, bad)

        assert set(statuses(bad)) <= {403, 503}
        assert set(statuses(good)) == {200, 503}
        wait_until("both", lambda: len(parts.pids(0)) == len(parts.pids(1)) == 2 or None, within=20)
        good, bad = parts.load()
        _said("both back", good, bad)
        assert statuses(good)[200] > 0.97 * len(good)
