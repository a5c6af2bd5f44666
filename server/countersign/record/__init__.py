"""The log of decisions: one JSON line for each, written beside the request path, and proof that none was changed."""
