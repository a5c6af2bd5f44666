"""Everything that can fail for reasons not our own: sockets, files, fetches, clocks, logs."""
