"""Envoy's ext_authz messages: generated protobuf (never edited) and the one codec that speaks it."""
