"""The workload behind the arena, a program of its own: answers every request with the head that it received.

Usage: python echo.py SOCKET
"""

import asyncio
import base64
import sys
from typing import Final

_END: Final = b"\r\n\r\n"


class Echo(asyncio.Protocol):
    """One connection of Envoy's; requests have no bodies."""

    def __init__(self) -> None:
        self._buffer = b""
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        self._buffer += data
        while _END in self._buffer:
            head, _, self._buffer = self._buffer.partition(_END)
            # In a header, so that HEAD tells as much as GET.
            self._transport.write(
                b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx-echo: %b\r\n\r\n" % base64.b64encode(head)
            )


async def _serve(socket: str) -> None:
    server = await asyncio.get_running_loop().create_unix_server(Echo, socket)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1]))
