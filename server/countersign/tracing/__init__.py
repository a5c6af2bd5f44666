"""Spans of checks for OpenTelemetry (extra ``otel``). See docs/tracing.md."""
