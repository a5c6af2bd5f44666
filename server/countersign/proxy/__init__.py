"""Envoy's side of the callout: configurations that ask Countersign, written and judged."""
