"""A server that keeps the first CheckRequest it gets in a file, and allows it.

usage: record.py ADDRESS FILE
"""

import sys
from pathlib import Path

from pygrpc_native import EVENT_CANCEL, NativeGrpcFront

METHOD = "/envoy.service.auth.v3.Authorization/Check"


def main(address: str, file: Path) -> None:
    """Serve until killed."""
    front = NativeGrpcFront(address, ((METHOD, False),), io_threads=1)
    front.start()
    while (events := front.recv_batch(1, None)) is not None:
        for kind, call, _, payload, _ in events:
            if kind != EVENT_CANCEL and payload is not None:
                file.write_bytes(payload)
                front.respond(call, bytes.fromhex("0a00"))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
