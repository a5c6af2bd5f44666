"""A worker process, ``python -m countersign.workers FD``: started by the supervisor, never by hand."""

import asyncio
import socket
import sys

from countersign.workers.worker import work


def main() -> int:
    """Serve as the supervisor says over the socket that it has left open as this file descriptor."""
    with socket.socket(fileno=int(sys.argv[1])) as pipe:
        return asyncio.run(work(pipe))


if __name__ == "__main__":
    raise SystemExit(main())
