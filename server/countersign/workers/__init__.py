"""Several serving processes: a supervisor that knows policies and keys, and workers that it feeds and replaces."""
