"""What a hostile peer does to a gRPC server (requirements A09, A12, A13). Each stops when the server closes on it."""

import gzip
import struct
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

from countersign.edge.addresses import UnixAddress

from tests.edge.frames import (
    CALL,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PING,
    PREFACE,
    SETTINGS,
    Peer,
    frame,
    literal,
    message,
    reset,
)

Abuse = Callable[[UnixAddress, int], None]

_BATCH: Final = 500


def _flood(address: UnixAddress, times: int, make: Callable[[int], bytes]) -> None:
    """Frames by the batch; on a new connection where the server has closed the last."""
    sent = 0
    while sent < times:
        going = True
        with Peer(address) as peer:
            while going and sent < times:
                going = peer.send(b"".join(map(make, range(sent, sent + _BATCH))))
                sent += _BATCH


def rapid_reset(address: UnixAddress, scale: int) -> None:
    """Calls that are cancelled as they are made (CVE-2023-44487)."""

    def make(number: int) -> bytes:
        stream = 2 * number + 1
        call = frame(HEADERS, END_HEADERS, stream, CALL) + frame(DATA, END_STREAM, stream, message(b""))
        return call + reset(stream)

    _flood(address, 5_000 * scale, make)


def pings(address: UnixAddress, scale: int) -> None:
    """Pings, each of which wants an answer (CVE-2019-9512)."""
    _flood(address, 20_000 * scale, lambda number: frame(PING, 0, 0, struct.pack(">Q", number)))


def settings(address: UnixAddress, scale: int) -> None:
    """Settings, each of which wants an answer (CVE-2019-9515)."""
    _flood(address, 20_000 * scale, lambda _: frame(SETTINGS, 0, 0))


def continuations(address: UnixAddress, scale: int) -> None:
    """Headers that do not end (CVE-2024-27316)."""
    part = literal("x-more", "v" * 16_000)
    for _ in range(4 * scale):
        with Peer(address) as peer:
            going = peer.send(frame(HEADERS, 0, 1, CALL))
            for _ in range(200):
                going = going and peer.send(frame(CONTINUATION, 0, 1, part))


def half_open(address: UnixAddress, scale: int) -> None:
    """As many calls as a connection may have, each of which has sent a part of its message and will never end it."""
    with ExitStack() as stack:
        for _ in range(2 * scale):
            peer = stack.enter_context(Peer(address))
            for number in range(1000):
                stream = 2 * number + 1
                if not peer.send(frame(HEADERS, END_HEADERS, stream, CALL) + frame(DATA, 0, stream, b"\x00\x00\x00")):
                    break


def idle(address: UnixAddress, scale: int) -> None:
    """Connections that never say anything, or no more than hello."""
    with ExitStack() as stack:
        for number in range(500 * scale):
            stack.enter_context(Peer(address, hello=bool(number % 2)))


def byte_by_byte(address: UnixAddress, scale: int) -> None:
    """Connections that dribble: none has come beyond the middle of its preface."""
    with ExitStack() as stack:
        peers = [stack.enter_context(Peer(address, hello=False)) for _ in range(20 * scale)]
        for octet in PREFACE[:-1]:
            for peer in peers:
                peer.send(bytes((octet,)))


def claims(address: UnixAddress, scale: int) -> None:
    """Messages that claim the greatest length there is, of which hardly anything comes."""
    with ExitStack() as stack:
        for _ in range(scale):
            peer = stack.enter_context(Peer(address))
            for number in range(100):
                stream = 2 * number + 1
                start = message(b"x" * 100, claimed=2**32 - 1)
                if not peer.send(frame(HEADERS, END_HEADERS, stream, CALL) + frame(DATA, 0, stream, start)):
                    break


def compressed(address: UnixAddress, scale: int) -> None:
    """Messages of 32 MiB in a few KiB."""
    bomb = gzip.compress(bytes(32 << 20))
    start = CALL + literal("grpc-encoding", "gzip")
    for _ in range(scale):
        with Peer(address) as peer:
            peer.send(frame(HEADERS, END_HEADERS, 1, start))
            data = b"\x01" + struct.pack(">I", len(bomb)) + bomb
            chunks = [data[at : at + 16_384] for at in range(0, len(data), 16_384)]
            for chunk in chunks[:-1]:
                peer.send(frame(DATA, 0, 1, chunk))
            peer.send(frame(DATA, END_STREAM, 1, chunks[-1]))
            peer.wait_for(bytes((HEADERS, END_STREAM | END_HEADERS)) + struct.pack(">I", 1))  # the call's end


ABUSES: Final[tuple[Abuse, ...]] = (
    rapid_reset,
    pings,
    settings,
    continuations,
    half_open,
    idle,
    byte_by_byte,
    claims,
    compressed,
)
