"""Spans of checks, as a receiver of OTLP decodes them."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from countersign.core.decision import Reason
from countersign.edge.check import Checker
from countersign.edge.observed import Answered
from countersign.judgement import deny
from countersign.tracing import tracer
from countersign.tracing.tracer import Tracer
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.edge.serving import request, snapshot
from tests.record.answering import ALLOW, DENY, answered
from tests.tracing.receiving import Receiver, attributes

TRACE: Final = "0af7651916cd43dd8448eb211c80319c"
PARENT: Final = "b7ad6b7169203331"
SAMPLED: Final = f"00-{TRACE}-{PARENT}-01"
CALL_TRACE: Final = "4bf92f3577b34da6a3ce929d0e0e4736"
CALL_PARENT: Final = "00f067aa0ba902b7"
CALL: Final = f"00-{CALL_TRACE}-{CALL_PARENT}-01"
UNSAMPLED: Final = f"00-{TRACE}-{PARENT}-00"


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with Receiver() as found:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", found.endpoint)
        yield found


def traced(*answers: Answered) -> None:
    """Trace these, and send every span."""
    found = Tracer()
    for each in answers:
        found.observe(each)
    found.stop()


def payload(**headers: str) -> bytes:
    return request(headers=headers).SerializeToString()


def test_a_span_says_when_what_and_by_which_policy(receiver: Receiver) -> None:
    traced(answered(payload(traceparent=SAMPLED, tracestate="a=b"), decision=DENY, number=7))

    (span,) = receiver.spans
    assert (span.name, span.kind) == ("countersign.check", Span.SPAN_KIND_SERVER)
    assert (span.trace_id.hex(), span.parent_span_id.hex(), span.trace_state) == (TRACE, PARENT, "a=b")
    assert span.start_time_unix_nano == 1_800_000_000_250_000_000
    assert span.end_time_unix_nano - span.start_time_unix_nano == 500_033_000
    assert attributes(span) == {
        "countersign.decision": "DENY",
        "countersign.reason": "no-allow-rule-matched",
        "countersign.remembered": False,
        "countersign.decision_id": "0123456789abcdef-00000000007",
        "countersign.workload": "apps/httpbin",
    }
    assert span.status.code == Status.STATUS_CODE_UNSET  # to deny is no fault
    assert _service(receiver) == "countersign"


def _service(receiver: Receiver) -> str:
    """What every process that has sent a span calls itself."""
    names = {
        each.value.string_value
        for request in receiver.requests
        for each in request.resource_spans[0].resource.attributes
        if each.key == "service.name"
    }
    (name,) = names
    return name


def test_the_page_names_every_attribute(receiver: Receiver) -> None:
    page = (Path(__file__).parents[2] / "docs" / "tracing.md").read_text()

    traced(answered(payload(traceparent=SAMPLED)))

    assert set(re.findall(r"^\| `(countersign\.\w+)` \|", page, re.MULTILINE)) == set(attributes(receiver.spans[0]))


def test_an_allow_names_its_rule_and_a_fault_is_an_error(receiver: Receiver) -> None:
    fault = deny(Reason.INTERNAL_ERROR)
    traced(answered(payload(traceparent=SAMPLED)), answered(payload(traceparent=SAMPLED), decision=fault))

    allowed, failed = receiver.spans
    assert attributes(allowed)["countersign.decision"] == "ALLOW"
    assert attributes(allowed)["countersign.policy"] == ALLOW.policy.id if ALLOW.policy else False
    assert (failed.status.code, failed.status.message) == (Status.STATUS_CODE_ERROR, "internal-error")


def test_a_parent_that_is_not_sampled_has_no_span_and_one_that_is_has(receiver: Receiver) -> None:
    traced(answered(payload(traceparent=UNSAMPLED)), answered(payload(traceparent=SAMPLED)))

    assert [span.parent_span_id.hex() for span in receiver.spans] == [PARENT]


def of_call(*values: str, of_request: str = SAMPLED) -> Answered:
    """A check whose call had these as its ``traceparent``, of a request with another."""
    metadata = (("traceparent-bin", b"00"), ("tracestate", "call=1"), *(("traceparent", value) for value in values))
    return answered(payload(traceparent=of_request, tracestate="a=b"), metadata=metadata)


def test_envoys_own_span_of_the_call_is_a_closer_parent_than_the_requests(receiver: Receiver) -> None:
    traced(of_call(CALL), answered(payload(), metadata=(("traceparent", CALL),)))

    assert [(span.trace_id.hex(), span.parent_span_id.hex(), span.trace_state) for span in receiver.spans] == [
        (CALL_TRACE, CALL_PARENT, "call=1"),
        (CALL_TRACE, CALL_PARENT, ""),
    ]


def test_what_envoy_does_not_sample_has_no_span_whatever_the_request_says(receiver: Receiver) -> None:
    traced(of_call(f"{CALL[:-2]}00"), of_call(CALL, of_request=UNSAMPLED))

    assert [span.parent_span_id.hex() for span in receiver.spans] == [CALL_PARENT]


@pytest.mark.parametrize("values", [(), (CALL, CALL), (CALL, SAMPLED), ("",), (f"{CALL}x",), (CALL.upper(),)])
def test_a_malformed_or_doubled_parent_of_the_call_is_as_good_as_none(
    receiver: Receiver, values: tuple[str, ...]
) -> None:
    traced(of_call(*values))

    (span,) = receiver.spans
    assert (span.trace_id.hex(), span.parent_span_id.hex(), span.trace_state) == (TRACE, PARENT, "a=b")


@pytest.mark.parametrize(
    "headers",
    [{}, {"traceparent": "00-0-0-01"}, {"traceparent": f"{SAMPLED}x"}, {"traceparent": f"00-{'0' * 32}-{PARENT}-01"}],
)
def test_without_a_well_formed_parent_the_span_is_a_root_if_the_sampler_says_so(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str]
) -> None:
    traced(answered(payload(**headers)))
    assert [span.parent_span_id for span in receiver.spans] == [b""]

    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    traced(answered(payload(**headers)), answered(payload(traceparent=SAMPLED)))
    assert [span.parent_span_id.hex() for span in receiver.spans] == ["", PARENT]


def test_a_request_that_cannot_be_read_has_a_span_too(receiver: Receiver) -> None:
    told: list[Answered] = []
    Checker(snapshot, lambda _: None, lambda _: None, told.append).answer(b"\xff", None)

    traced(*told)

    (span,) = receiver.spans
    assert attributes(span)["countersign.reason"] == "request-malformed"


def test_nothing_of_a_request_is_in_what_is_sent(receiver: Receiver) -> None:
    token = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl"
    secret = request(path=f"/secret-path?token={token}", headers={"cookie": "c=1", "authorization": f"Bearer {token}"})
    current = snapshot()
    told: list[Answered] = []
    Checker(lambda: current, lambda _: None, lambda _: None, told.append).answer(secret.SerializeToString(), None)

    traced(*told)

    assert len(receiver.spans) == 1
    for part in (b"secret-path", b"eyJ", b"c=1", b"sleep"):
        assert part not in b"".join(receiver.bodies)


def test_the_name_of_the_service_is_the_one_that_is_told(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "edge-authz")

    traced(answered(payload(traceparent=SAMPLED)))

    assert _service(receiver) == "edge-authz"


def test_a_full_queue_costs_spans_and_nothing_else(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tracer, "QUEUE", 0)

    traced(answered(payload(traceparent=SAMPLED)))

    assert receiver.spans == []
    assert "1 checks have no span" in caplog.text
