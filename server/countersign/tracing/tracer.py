"""A span for each sampled check, made after the fact by a thread of its own.

The thread of a check only appends to a queue. Parent, sampling and export are OpenTelemetry's own, and so are their
settings: the ``OTEL_`` variables. Only this module imports it, and only a process that traces imports this module.
"""

import logging
import os
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from countersign.core.decision import Allow, Deny, Reason
from countersign.edge.metadata import texts
from countersign.edge.observed import Answered
from countersign.edge.recorded import facts_of
from countersign.judgement import Judgement
from countersign.policy.workload import Workload

_log: Final = logging.getLogger(__name__)

NAME: Final = "countersign.check"
QUEUE: Final = 4096  # checks whose span is still to be made; further ones have none
_LOOK: Final = 0.05  # seconds between two looks at the queue
_GRACE: Final = 3.0  # seconds for the last spans to be sent
_CONTEXT: Final = ("traceparent", "tracestate")  # W3C Trace Context
_FAULTS: Final = frozenset({Reason.INTERNAL_ERROR, Reason.UNRECORDED})


class Tracer:
    """Traces until `stop`. `observe` is for any thread, and neither waits nor sends."""

    def __init__(self) -> None:
        named = SERVICE_NAME in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "") or "OTEL_SERVICE_NAME" in os.environ
        self._provider = TracerProvider(
            resource=Resource.create({} if named else {SERVICE_NAME: "countersign"}), shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("countersign")
        self._propagator = TraceContextTextMapPropagator()
        self._queue: deque[Answered] = deque()
        self._dropped = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tracing", daemon=True)
        self._thread.start()

    def observe(self, answered: Answered) -> None:
        """Have a span made of it, if there is room."""
        if len(self._queue) < QUEUE:
            self._queue.append(answered)
        else:
            self._dropped += 1

    def stop(self) -> None:
        """Make and send what is left, within `_GRACE`."""
        self._stop.set()
        self._thread.join(_GRACE)
        ending = threading.Thread(target=self._provider.shutdown, name="last spans", daemon=True)
        ending.start()
        ending.join(_GRACE)
        if self._dropped:
            _log.warning("%d checks have no span: they came faster than spans are made", self._dropped)

    def _run(self) -> None:
        while not self._stop.wait(_LOOK):
            self._turn()
        self._turn()

    def _turn(self) -> None:
        with suppress(IndexError):
            while True:
                answered = self._queue.popleft()
                try:
                    self._span(answered)
                except Exception as error:  # noqa: BLE001 (a fault of ours costs a span, not the tracing)
                    _log.error("a span could not be made: %s", type(error).__name__)

    def _span(self, answered: Answered) -> None:
        judged, begun = answered.judged, round(answered.at * 1e6) * 1000
        span = self._tracer.start_span(
            NAME,
            context=self._parent(answered),
            kind=SpanKind.SERVER,
            attributes=_attributes(answered),
            start_time=begun,
        )
        if judged.decision.reason in _FAULTS:
            span.set_status(Status(StatusCode.ERROR, judged.decision.reason))
        span.end(begun + round(sum(answered.stages) * 1e9))

    def _parent(self, answered: Answered) -> Context:
        """Envoy's own span of the call, where it names one; else the context that the request carries, or the root's.

        What is not well-formed, or said more than once, is as good as not said.
        """
        of_call = self._extract({name: texts(answered.metadata, name) for name in _CONTEXT})
        if get_current_span(of_call).get_span_context().is_valid:
            return of_call
        facts = facts_of(answered.payload)
        if isinstance(facts, Deny) or facts.http is None:
            return of_call
        return self._extract({name: facts.http.headers.values(name) for name in _CONTEXT})

    def _extract(self, said: Mapping[str, Sequence[str]]) -> Context:
        return self._propagator.extract({name: each[0] for name, each in said.items() if len(each) == 1}, Context())


def _attributes(answered: Answered) -> dict[str, str | bool]:
    """What an access log may say too: never a header, a path or a claim."""
    judged: Judgement = answered.judged
    decision = judged.decision
    found: dict[str, str | bool] = {
        "countersign.decision": "ALLOW" if isinstance(decision, Allow) else "DENY",
        "countersign.reason": str(decision.reason),
        "countersign.remembered": answered.remembered,
    }
    if answered.id:
        found["countersign.decision_id"] = answered.id
    if decision.policy is not None:
        found["countersign.policy"] = decision.policy.id
    if judged.workload is not None:
        found["countersign.workload"] = _named(judged.workload)
    return found


def _named(workload: Workload) -> str:
    app = dict(workload.labels).get("app", "")
    return f"{workload.namespace}/{app}" if app else workload.namespace
