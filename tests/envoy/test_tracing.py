"""The real Envoy traces with its own OpenTelemetry tracer: its span of the callout is the parent of the check's."""

import contextlib
import datetime as dt
import http.client
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from countersign.edge.transport import Transport
from countersign.mesh.certificates import write_certificates
from countersign.mesh.envoy import Envoy
from countersign.mesh.process import wait_until
from countersign.mesh.relocate import Places
from countersign.mesh.upstream import upstream
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.cli.serving import Serve
from tests.edge.serving import TRANSPORTS
from tests.tracing.receiving import Receiver, attributes
from tests.tracing.test_tracer import SAMPLED, TRACE, UNSAMPLED

pytestmark = pytest.mark.envoy

CONFIGURATION: Final = Path(__file__).parents[2] / "envoy" / "httpbin.yaml"
TYPE: Final = "type.googleapis.com/envoy.config.trace.v3"
ANY: Final = ("127.0.0.1", 0)
CALLOUT: Final = "async envoy.service.auth.v3.Authorization.Check egress"
POLICY: Final = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: readers, namespace: apps}
spec: {rules: [{to: [{operation: {methods: [GET]}}]}]}
"""


def _traced(document: Any, percent: int) -> None:
    """Have Envoy send its spans to the collector, of so many percent of the requests that say nothing of it."""
    uri = {"uri": "http://collector/v1/traces", "cluster": "collector", "timeout": "1s"}
    provider = {
        "name": "envoy.tracers.opentelemetry",
        "typed_config": {
            "@type": f"{TYPE}.OpenTelemetryConfig",
            "service_name": "envoy",
            "http_service": {"http_uri": uri},
        },
    }
    address = {"socket_address": {"address": "collector", "port_value": 4318}}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    document["static_resources"]["clusters"].append(
        {
            "name": "collector",
            "type": "STATIC",
            "load_assignment": {"cluster_name": "collector", "endpoints": endpoints},
        }
    )
    runtime = {"tracing.opentelemetry.flush_interval_ms": 50, "tracing.opentelemetry.min_flush_spans": 1}
    document["layered_runtime"] = {"layers": [{"name": "soon", "static_layer": runtime}]}
    for chain in document["static_resources"]["listeners"][0]["filter_chains"]:
        chain["filters"][0]["typed_config"]["tracing"] = {
            "provider": provider,
            "random_sampling": {"value": percent},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Traced:
    """A sidecar, and the collector of its spans and of Countersign's."""

    port: int
    receiver: Receiver

    def ask(self, method: str, **headers: str) -> int:
        """The status of a request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        with contextlib.closing(connection):
            connection.request(method, "/", headers=headers)
            return connection.getresponse().status

    def checks(self) -> list[Span]:
        """Countersign's spans so far."""
        return [span for span in self.receiver.spans if span.name == "countersign.check"]

    def check(self, reason: str) -> Span:
        """Countersign's span with that reason."""

        def found() -> Span | None:
            return next((each for each in self.checks() if attributes(each)["countersign.reason"] == reason), None)

        return wait_until("the span of the check", found, within=10)

    def span(self, number: bytes) -> Span:
        """The span of that ID."""

        def found() -> Span | None:
            return next((each for each in self.receiver.spans if each.span_id == number), None)

        return wait_until("the span of Envoy", found, within=10)


@contextlib.contextmanager
def traced(
    directory: Path, monkeypatch: pytest.MonkeyPatch, transport: Transport, percent: int = 100
) -> Iterator[Traced]:
    run, certificates, policies = (directory / name for name in ("run", "certs", "policies"))
    for each in (run, certificates, policies):
        each.mkdir()
    write_certificates(certificates, dt.datetime.now(dt.UTC))
    (policies / "p.yaml").write_text(POLICY)
    document = yaml.safe_load(CONFIGURATION.read_text())
    _traced(document, percent)
    changed = directory / "httpbin.yaml"
    changed.write_text(yaml.safe_dump(document))
    with contextlib.ExitStack() as parts:
        receiver = parts.enter_context(Receiver())
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        application = parts.enter_context(upstream("127.0.0.1", 0))
        flags = ("--namespace", "apps", "--transport", transport, "--tracing", "otlp")
        serve = parts.enter_context(Serve(run, policies, *flags))
        wait_until("being ready", lambda: serve.ready() == "ok" or None, within=20, child=serve.child)
        places = Places(
            addresses={
                "127.0.0.1:9901": ANY,
                "0.0.0.0:15006": ANY,
                "upstream:8080": ("127.0.0.1", application.port),
                "collector:4318": ("127.0.0.1", int(receiver.endpoint.rpartition(":")[2])),
            },
            paths={"/run/countersign": run, "/run/mesh/certs": certificates},
        )
        envoy = parts.enter_context(Envoy(changed, places, directory))
        envoy.wait_ready()
        yield Traced(port=envoy.port("inbound"), receiver=receiver)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_one_trace_has_envoys_span_of_the_callout_and_the_checks_as_its_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, transport: Transport
) -> None:
    """Whether the trace begins in Envoy, or the caller has begun it."""
    with traced(tmp_path, monkeypatch, transport) as running:
        assert running.ask("GET") == 200
        assert running.ask("DELETE", traceparent=SAMPLED) == 403
        for reason, of_caller in (("allow-rule-matched", False), ("no-allow-rule-matched", True)):
            check = running.check(reason)
            callout = running.span(check.parent_span_id)
            request = running.span(callout.parent_span_id)

            assert (callout.name, callout.kind) == (CALLOUT, Span.SPAN_KIND_CLIENT)
            assert request.kind == Span.SPAN_KIND_SERVER
            assert check.trace_id == callout.trace_id == request.trace_id
            assert (check.trace_id.hex() == TRACE) is of_caller


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_what_envoy_does_not_sample_has_no_span_of_a_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, transport: Transport
) -> None:
    with traced(tmp_path, monkeypatch, transport, percent=0) as running:
        for context in ({}, {"traceparent": UNSAMPLED}, {"traceparent": SAMPLED}):  # Envoy's word is the last
            assert running.ask("DELETE", **context) == 403
        assert running.ask("GET", **{"x-client-trace-id": "any"}) == 200  # whoever comes last is sent last
        allowed = running.check("allow-rule-matched")

        assert running.checks() == [allowed]
