"""A load generator that costs little: pre-encoded HTTP/2 requests on a few connections, in one thread.

It speaks just enough of RFC 9113 to be a correct client of gRPC servers and of Envoy: settings, pings, and flow
control of what it sends. Header blocks are literals (RFC 7541 6.2.2), so that a request is the same bytes each time
but for its stream id, and the peer is told to keep no dynamic table, so that `:status` can be read by its first octet.
"""

import collections
import itertools
import math
import selectors
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

DATA: Final = 0
HEADERS: Final = 1
RST_STREAM: Final = 3
SETTINGS: Final = 4
PING: Final = 6
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8
END_STREAM: Final = 1
ACK: Final = 1
_SIZE_UPDATE: Final = 0x20
_CONTINUED: Final = 128
END_HEADERS: Final = 4
STATUS_200: Final = 0x88  # `:status 200` as an indexed field (RFC 7541 appendix A)

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HUGE_WINDOW: Final = 2**31 - 1
_REFILL: Final = 2**30  # octets received after which the peer's window is filled up again
_DEFAULT_WINDOW: Final = 65_535
_HEAD: Final = 9  # octets before a frame's payload (RFC 9113 4.1)
_READ: Final = 1 << 18
_DRAIN: Final = 10.0  # seconds to wait for the last answers


Address = Path | tuple[str, int]  # a unix socket, or a host and a port


class LoadError(RuntimeError):
    """The server did something that makes the measurement worthless."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request, ready to be sent: its header block and its body (empty: none)."""

    headers: bytes
    body: bytes = b""


@dataclass(slots=True)
class Outcome:
    """What a run has measured. ``latencies`` are seconds, from the time a request was due to its last octet."""

    answers: collections.Counter[str] = field(default_factory=collections.Counter)
    latencies: list[float] = field(default_factory=list)
    by_answer: dict[str, list[float]] = field(default_factory=lambda: collections.defaultdict(list))
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.latencies) / self.seconds

    def percentile(self, share: float) -> float:
        """The latency that the ``share`` (0 to 1) of all answers do not exceed, in seconds."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


# What an answer is called, by its `:status` octet (0x88 is 200, RFC 7541 appendix A) and its data.
Classifier = Callable[[int, bytes], str]


def literal(name: str, value: str) -> bytes:
    """A header field without indexing and without Huffman coding."""
    return b"\0" + _string(name.encode()) + _string(value.encode())


def grpc_exchange(path: str, message: bytes, metadata: Iterable[tuple[str, str]] = ()) -> Exchange:
    """A unary gRPC call (gRPC over HTTP/2, "Requests")."""
    headers = b"\x83\x86" + literal(":path", path) + literal(":authority", "countersign")
    headers += literal("te", "trailers") + literal("content-type", "application/grpc")
    headers += b"".join(literal(name, value) for name, value in metadata)
    return Exchange(headers, b"\0" + struct.pack(">I", len(message)) + message)


def get_exchange(path: str, authority: str, headers: Iterable[tuple[str, str]] = ()) -> Exchange:
    """A GET over https."""
    block = b"\x82\x87" + literal(":path", path) + literal(":authority", authority)
    return Exchange(block + b"".join(literal(name, value) for name, value in headers))


class _Connection:
    """One connection: what was asked and not yet answered, and how much may be sent."""

    def __init__(self, transport: socket.socket, classify: Classifier, outcome: Outcome) -> None:
        self.socket = transport
        self.asked: dict[int, float] = {}  # stream -> when it was due
        self._classify = classify
        self._outcome = outcome
        self._window = _DEFAULT_WINDOW
        self._stream = 1
        self._received = b""
        self._since_refill = 0
        self._pending: collections.deque[bytes] = collections.deque()
        self._status: dict[int, int] = {}
        self._data: dict[int, bytes] = {}
        settings = struct.pack(">HIHI", 1, 0, 4, _HUGE_WINDOW)  # HEADER_TABLE_SIZE, INITIAL_WINDOW_SIZE
        hello = _PREFACE + _frame(SETTINGS, 0, 0, settings)
        self._output = bytearray(hello + _frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", _HUGE_WINDOW - _DEFAULT_WINDOW)))

    def ask(self, exchange: Exchange, due: float) -> None:
        """Send as soon as flow control lets it."""
        stream, self._stream = self._stream, self._stream + 2
        self.asked[stream] = due
        flags = END_HEADERS if exchange.body else END_HEADERS | END_STREAM
        self._output += _frame(HEADERS, flags, stream, exchange.headers)
        if exchange.body:
            self._pending.append(_frame(DATA, END_STREAM, stream, exchange.body))

    def flush(self) -> None:
        """Write what may be written; what the socket does not take stays for the next time."""
        while self._pending and len(self._pending[0]) - 9 <= self._window:
            frame = self._pending.popleft()
            self._window -= len(frame) - 9
            self._output += frame
        if not self._output:
            return
        try:
            sent = self.socket.send(self._output)
        except (BlockingIOError, ssl.SSLWantWriteError):
            return
        del self._output[:sent]

    @property
    def blocked(self) -> bool:
        """Whether octets wait for the socket."""
        return bool(self._output)

    def receive(self) -> int:
        """Read what is there; give the number of requests answered."""
        try:
            octets = self.socket.recv(_READ)
        except (BlockingIOError, ssl.SSLWantReadError):
            return 0
        if not octets:
            raise LoadError("the server closed the connection")
        now = time.perf_counter()
        buffer = self._received + octets
        position, end, answered = 0, len(buffer), 0
        while end - position >= _HEAD:
            length = int.from_bytes(buffer[position : position + 3], "big")
            if end - position - 9 < length:
                break
            kind, flags = buffer[position + 3], buffer[position + 4]
            stream = int.from_bytes(buffer[position + 5 : position + 9], "big")
            payload = buffer[position + 9 : position + 9 + length]
            position += 9 + length
            if kind == HEADERS:
                if stream not in self._status:
                    self._status[stream] = _first_field(payload)
            elif kind == DATA:
                self._since_refill += length
                self._data[stream] = self._data.get(stream, b"") + payload
            else:
                self._control(kind, flags, stream, payload)
            if flags & END_STREAM and kind in {DATA, HEADERS}:
                answered += 1
                latency = now - self.asked.pop(stream)
                self._outcome.latencies.append(latency)
                answer = self._classify(self._status.pop(stream), self._data.pop(stream, b""))
                self._outcome.answers[answer] += 1
                self._outcome.by_answer[answer].append(latency)
        self._received = buffer[position:]
        if self._since_refill > _REFILL:
            self._output += _frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", self._since_refill))
            self._since_refill = 0
        return answered

    def _control(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == SETTINGS and not flags & ACK:
            self._output += _frame(SETTINGS, ACK, 0, b"")
        elif kind == PING and not flags & ACK:
            self._output += _frame(PING, ACK, 0, payload)
        elif kind == WINDOW_UPDATE and stream == 0:
            self._window += int.from_bytes(payload, "big")
        elif kind in {GOAWAY, RST_STREAM}:
            raise LoadError(f"the server sent frame {kind}: {payload!r}")


class Load:
    """Connections to one server, for any number of runs."""

    def __init__(
        self,
        address: Address,
        classify: Classifier,
        *,
        connections: int = 1,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._outcome = Outcome()
        self._selector = selectors.DefaultSelector()
        self._connections = []
        for _ in range(connections):
            transport = _connect(address, tls)
            connection = _Connection(transport, classify, self._outcome)
            self._selector.register(transport, selectors.EVENT_READ, connection)
            self._connections.append(connection)

    def close(self) -> None:
        """Close the connections."""
        for connection in self._connections:
            connection.socket.close()
        self._selector.close()

    def closed_loop(
        self, exchanges: Iterator[Exchange], seconds: float, concurrency: int, *, at_most: float = math.inf
    ) -> Outcome:
        """Keep ``concurrency`` requests under way on each connection.

        End after ``seconds``, or as soon as ``at_most`` requests were answered.
        """
        outcome = self._begin()
        started = time.perf_counter()
        end = started + seconds
        for connection in self._connections:
            for _ in range(concurrency):
                connection.ask(next(exchanges), started)
        while (now := time.perf_counter()) < end and len(outcome.latencies) < at_most:
            for connection, answered in self._turn(end - now):
                for _ in range(answered):
                    connection.ask(next(exchanges), time.perf_counter())
        return self._end(outcome, started)

    def open_loop(self, exchanges: Iterator[Exchange], seconds: float, rate: float) -> Outcome:
        """Send ``rate`` requests a second whatever the server does; a latency begins when its request was due."""
        turn = itertools.cycle(self._connections)
        outcome = self._begin()
        started = time.perf_counter()
        total, sent = int(rate * seconds), 0
        while sent < total:
            now = time.perf_counter()
            due = min(total, int((now - started) * rate) + 1)
            for number in range(sent, due):
                next(turn).ask(next(exchanges), started + number / rate)
            sent = max(sent, due)
            for _ in self._turn(started + sent / rate - time.perf_counter()):
                pass
        return self._end(outcome, started)

    def _begin(self) -> Outcome:
        self._outcome.answers = collections.Counter()
        self._outcome.latencies = []
        self._outcome.by_answer = collections.defaultdict(list)
        return self._outcome

    def _end(self, outcome: Outcome, started: float) -> Outcome:
        outcome.seconds = time.perf_counter() - started
        by_answer = {answer: list(each) for answer, each in outcome.by_answer.items()}
        result = Outcome(outcome.answers.copy(), list(outcome.latencies), by_answer, outcome.seconds)
        limit = time.perf_counter() + _DRAIN
        while any(connection.asked for connection in self._connections):
            if time.perf_counter() > limit:
                raise LoadError("some requests were never answered")
            for _ in self._turn(0.1):
                pass
        return result

    def _turn(self, timeout: float) -> Iterator[tuple[_Connection, int]]:
        """Write, wait for at most ``timeout`` seconds, read: each connection with the number of its answers."""
        for connection in self._connections:
            connection.flush()
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.blocked else 0)
            if self._selector.get_key(connection.socket).events != events:
                self._selector.modify(connection.socket, events, connection)
        for key, events in self._selector.select(max(0.0, timeout)):
            if events & selectors.EVENT_READ:
                connection = key.data
                answered = connection.receive()
                pending = getattr(connection.socket, "pending", int)  # TLS may hold more than the socket shows
                while pending():
                    answered += connection.receive()
                yield connection, answered


def _connect(address: Address, tls: ssl.SSLContext | None) -> socket.socket:
    if isinstance(address, Path):
        transport = socket.socket(socket.AF_UNIX)
        try:
            transport.connect(str(address))
        except OSError:
            transport.close()
            raise
    else:
        transport = socket.create_connection(address)
        transport.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if tls is not None:
        transport = tls.wrap_socket(transport, server_hostname="httpbin")
    transport.settimeout(0.0)
    return transport


def _first_field(block: bytes) -> int:
    """The first octet of a header block that is no dynamic table size update (RFC 7541 6.3)."""
    return next((octet for octet in block if octet & 0xE0 != _SIZE_UPDATE), 0)


def _string(text: bytes) -> bytes:
    return _integer(len(text), 7) + text


def _integer(value: int, bits: int) -> bytes:
    """RFC 7541 5.1."""
    limit = (1 << bits) - 1
    if value < limit:
        return bytes((value,))
    octets = [limit]
    value -= limit
    while value >= _CONTINUED:
        octets.append(value % _CONTINUED + _CONTINUED)
        value //= _CONTINUED
    return bytes((*octets, value))


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload
