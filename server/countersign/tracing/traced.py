"""Tracing as the settings want it; what OpenTelemetry is, is imported only where it is wanted."""

from importlib.util import find_spec
from typing import Protocol

from countersign.edge.observed import Answered, Observe, all_of


class Tracing(Protocol):
    """What traces, until `stop`."""

    def observe(self, answered: Answered) -> None:
        """One check was answered."""

    def stop(self) -> None:
        """Send what is left."""


def is_installed() -> bool:
    """Whether the extra ``otel`` is there."""
    try:
        return find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ModuleNotFoundError:  # one of the packages above it
        return False


def tracing(*, wanted: bool) -> Tracing | None:
    """What traces from now on; None where nobody wants it."""
    if not wanted:
        return None
    from countersign.tracing.tracer import Tracer  # noqa: PLC0415 (see above)

    return Tracer()


def tracing_too(observe: Observe, tracer: Tracing | None) -> Observe:
    """Have each answer traced beside what ``observe`` does, if there is a tracer."""
    return observe if tracer is None else all_of(observe, tracer.observe)
