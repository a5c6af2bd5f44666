"""What a check costs, measured; see `docs/performance.md`."""
