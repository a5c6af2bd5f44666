"""Policies from a Kubernetes API server: listed, watched, and given to the same parser as files."""
