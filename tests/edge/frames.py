"""An HTTP/2 client that does what it should not: frames by hand, as RFC 9113 numbers them, and no state.

Not a library of HTTP/2: those refuse to write what is sent here.
"""

import socket
import struct
from collections.abc import Mapping
from typing import Final, Self

from countersign.edge.addresses import UnixAddress
from countersign.wire.codec import METHOD

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS, ACK = 0x1, 0x4, 0x1

_CANCEL: Final = 8
_TIMEOUT: Final = 10.0  # seconds: far above anything that is expected
_CHUNK: Final = 1 << 16


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame (RFC 9113 4.1)."""
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def literal(name: str, value: str) -> bytes:
    """A header line without any compression (RFC 7541 6.2.2)."""
    return b"\x00" + _string(name) + _string(value)


def _string(text: str) -> bytes:
    written = text.encode("utf-8", "surrogateescape")
    length = len(written)
    if length < 0x7F:
        return bytes((length,)) + written
    octets, rest = [0x7F], length - 0x7F
    while rest > 0x7F:
        octets.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes((*octets, rest)) + written


_LINES: Final = {
    ":method": "POST",
    ":scheme": "http",
    ":path": METHOD,
    ":authority": "localhost",
    "content-type": "application/grpc",
    "te": "trailers",
}


def call(lines: Mapping[str, str | None] | None = None) -> bytes:
    """The header block of a check, with other lines or (None) without them. A lone surrogate is an octet (PEP 383)."""
    whole = {**_LINES, **(lines or {})}
    return b"".join(literal(name, value) for name, value in whole.items() if value is not None)


CALL: Final = call()


def message(payload: bytes, claimed: int | None = None) -> bytes:
    """A gRPC message; ``claimed`` is the length that its prefix says."""
    return b"\x00" + struct.pack(">I", len(payload) if claimed is None else claimed) + payload


def reset(stream: int) -> bytes:
    """RST_STREAM, CANCEL."""
    return frame(RST_STREAM, 0, stream, struct.pack(">I", _CANCEL))


class Peer:
    """A connection to a server. ``hello`` sends the preface."""

    def __init__(self, address: UnixAddress, *, hello: bool = True) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # By the option: under settimeout, a server whose queue is full is not waited for, but gives EAGAIN at once.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", int(_TIMEOUT), 0))
        self._socket.connect(address.path)
        self._socket.settimeout(_TIMEOUT)
        self.received = bytearray()
        self._pings = 0
        if hello:
            window = struct.pack(">I", (1 << 30) - 1)  # so that answers never wait for us
            self.send(PREFACE + frame(SETTINGS, 0, 0) + frame(SETTINGS, ACK, 0) + frame(WINDOW_UPDATE, 0, 0, window))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, octets: bytes) -> bool:
        """Send all of it, reading what comes meanwhile; False if the server has had enough and closed."""
        view = memoryview(octets)
        try:
            while view:
                sent = self._socket.send(view[:_CHUNK])
                view = view[sent:]
                self._read()
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def wait_for(self, octets: bytes, times: int = 1) -> None:
        """Read until this has come so often. Raise TimeoutError if it does not come, EOFError if it cannot."""
        while self.received.count(octets) < times:
            chunk = self._socket.recv(_CHUNK)
            if not chunk:
                raise EOFError
            self.received += chunk

    def ping(self) -> None:
        """Return once the server has read everything before."""
        self._pings += 1
        payload = struct.pack(">Q", self._pings)
        self.send(frame(PING, 0, 0, payload))
        self.wait_for(frame(PING, ACK, 0, payload))

    def _read(self) -> None:
        """Take what is there, so that nobody waits for us."""
        self._socket.setblocking(False)
        try:
            while chunk := self._socket.recv(_CHUNK):
                self.received += chunk
        except BlockingIOError:
            pass
        finally:
            self._socket.settimeout(_TIMEOUT)
