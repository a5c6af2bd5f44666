"""Policies that load and do not do what they seem to: the warnings of `countersign analyze` and of `serve` at load."""
