"""Istio resources to decisions. Pure, and the only room that knows Istio's policy language."""
