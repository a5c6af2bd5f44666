"""Everything that can fail for reasons not our own: sockets, files, fetches, clocks, logs."""

import os

# grpcio reads it once, as it is imported, which is in this folder only. What it says below errors repeats what peers
# write into their frames, line breaks included.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
