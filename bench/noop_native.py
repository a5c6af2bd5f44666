"""A server that answers every check with the same bytes on the native front: what the transport alone costs.

usage: noop_native.py ADDRESS HEX
"""

import sys

from pygrpc_native import EVENT_CANCEL, NativeGrpcFront

METHOD = "/envoy.service.auth.v3.Authorization/Check"


def main(address: str, answer: bytes) -> None:
    """Serve until killed."""
    front = NativeGrpcFront(address, ((METHOD, False),), io_threads=1)
    front.start()
    while (events := front.recv_batch(4096, None)) is not None:
        for kind, call, *_ in events:
            if kind != EVENT_CANCEL:
                front.respond(call, answer)


if __name__ == "__main__":
    main(sys.argv[1], bytes.fromhex(sys.argv[2]))
