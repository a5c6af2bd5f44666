"""The ext_authz and health services on pygrpc-native, whose HTTP/2 runs in Rust, outside the GIL.

A check is answered where it is taken from the front, on one thread that does nothing else: no event loop and no
second thread stands between its bytes and its answer. Only a held check goes to the event loop.

The front takes messages of any size, inflates what is compressed, and sets aside what a message's prefix claims
before it has come. So it is for peers of this machine only (see `countersign.edge.transport`).
"""

import asyncio
import concurrent.futures
import os
import threading
import time
from functools import partial
from typing import Final

from pygrpc_native import EVENT_CANCEL, NativeGrpcFront

from countersign.edge.addresses import Address, UnixAddress, prepare_socket, restrict_socket
from countersign.edge.metadata import Metadata
from countersign.edge.native_health import CHECK, WATCH, NativeHealth
from countersign.edge.server import MAX_RECEIVE, MAX_STREAMS, SOCKET_UMASK, Authorizer, Held
from countersign.edge.silence import Heard, silence
from countersign.edge.waiting import Queue, Waiting
from countersign.wire.codec import METHOD

_METHODS: Final = ((METHOD, False), (CHECK, False), (WATCH, True))
_AUTHZ_CHECK, _HEALTH_CHECK, _HEALTH_WATCH = range(len(_METHODS))

_BATCH: Final = 4096  # events taken at a time: all there are, so that who is one too many hears so at once
_TURN: Final = 0.001  # seconds of answering between two looks at what has arrived
_TOGETHER: Final = 8  # answers in a turn: with more of them, who asked would have nothing to do meanwhile
_SHORT_TURN: Final = 0.00025  # while there are too many, of whom each is to hear so soon

_RESOURCE_EXHAUSTED: Final = 8  # grpc::StatusCode

_Details = tuple[Metadata, str, float | None] | None  # of a call: its metadata, who calls, seconds until its deadline


class NativeServer:
    """Serves checks on one address; with ``metadata``, each with that of its call."""

    def __init__(self, authorizer: Authorizer, address: Address, *, metadata: bool = False) -> None:
        self._answer = authorizer.answer
        self._shed = authorizer.shed
        self._address = address
        self._metadata = metadata
        self._queue = Queue()
        self._unsent: list[tuple[int, bytes]] = []
        self._held: dict[int, concurrent.futures.Future[bytes]] = {}
        self._heard = Heard()
        self._front: NativeGrpcFront | None = None

    async def start(self) -> None:
        """Bind and accept. Raise OSError, naming the address, where that is not possible."""
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        front = self._bind()
        self._health = NativeHealth(front)
        self._front = front
        front.start()
        threading.Thread(target=self._run, args=(front,), name=f"checks of {self._address}", daemon=True).start()

    def _bind(self) -> NativeGrpcFront:
        if not isinstance(self._address, UnixAddress):
            return self._open()
        prepare_socket(self._address)
        umask = os.umask(SOCKET_UMASK)
        try:
            front = self._open()
        finally:
            os.umask(umask)
        restrict_socket(self._address)
        return front

    def _open(self) -> NativeGrpcFront:
        try:
            return NativeGrpcFront(
                str(self._address),
                _METHODS,
                io_threads=1,  # the checks themselves are one thread's work
                call_details=True,
                max_concurrent_streams=MAX_STREAMS,
            )
        except OSError as error:
            raise OSError(f"cannot listen on {self._address}") from error

    async def set_serving(self, *, serving: bool) -> None:
        """Tell health checks, for the whole server and for the service by name."""
        self._health.say(serving=serving)

    async def ended(self) -> None:
        """Return when the server has ended, and raise what ended it."""
        await asyncio.shield(self._ended)

    async def drain(self, grace: float) -> None:
        """Say NOT_SERVING, answer whoever still calls, and close once nobody does, at most ``grace`` seconds later."""
        if self._front is None:
            return
        self._health.drain()
        await silence(self._heard, self._busy, grace)
        self._front.close()
        await asyncio.wait([self._ended])

    def _busy(self) -> bool:
        return bool(self._queue) or bool(self._unsent) or bool(self._held)

    def _run(self, front: NativeGrpcFront) -> None:
        """The thread of the checks."""
        error: BaseException | None = None
        try:
            self._serve(front)
        except BaseException as raised:  # noqa: BLE001 (whoever waits for the end is told)
            error = raised
            front.close()
        self._loop.call_soon_threadsafe(self._end, error)

    def _end(self, error: BaseException | None) -> None:
        if error is None:
            self._ended.set_result(None)
        else:
            self._ended.set_exception(error)

    def _serve(self, front: NativeGrpcFront) -> None:
        queue = self._queue
        while (events := front.recv_batch_details(_BATCH, 0 if queue else None)) is not None:
            turn = _TURN
            if events:
                self._heard.call = time.monotonic()
                gone = {call for kind, call, *_ in events if kind == EVENT_CANCEL}
                for _, call, method, payload, _, details in events:
                    if payload is None or call in gone:
                        self._forget(call)
                    elif method == _AUTHZ_CHECK:
                        self._take(front, call, payload, details)
                    elif method == _HEALTH_CHECK:
                        self._heard.health = self._heard.call
                        self._health.check(call, payload)
                    else:
                        self._health.watch(call, payload)
                if self._unsent:  # to those who are one too many: no turn of others comes first
                    turn = _SHORT_TURN
                    self._send(front)
                    os.sched_yield()  # to the front's thread, where it shares the core
            self._turn(front, turn)
            self._send(front)

    def _send(self, front: NativeGrpcFront) -> None:
        """Send what is answered. It wakes the front's thread: for several at once, it costs least."""
        for call, octets in self._unsent:
            front.respond(call, octets)
        self._unsent.clear()

    def _turn(self, front: NativeGrpcFront, seconds: float) -> None:
        """Answer for a while."""
        queue = self._queue
        until = time.monotonic() + seconds
        while queue:
            call, payload, deadline, _, metadata = queue.take()
            answer = self._answer(payload, None if deadline is None else deadline - time.monotonic(), metadata)
            if isinstance(answer, bytes):
                self._unsent.append((call, answer))
            else:
                self._hold(front, call, answer)
            if len(self._unsent) >= _TOGETHER or time.monotonic() > until:
                break

    def _forget(self, call: int) -> None:
        """The caller has gone, or its deadline has."""
        self._queue.leave(call)
        self._health.leave(call)
        held = self._held.get(call)
        if held is not None:
            held.cancel()

    def _take(self, front: NativeGrpcFront, call: int, payload: bytes, details: _Details) -> None:
        if len(payload) > MAX_RECEIVE:
            front.fail(call, _RESOURCE_EXHAUSTED, f"received {len(payload)} bytes, more than {MAX_RECEIVE}")
            return
        remaining = details[2] if details else None
        deadline = None if remaining is None else self._heard.call + remaining
        metadata = details[0] if details and self._metadata else ()
        if not self._queue.offer(Waiting(call, payload, deadline, self._heard.call, metadata)):
            self._unsent.append((call, self._shed(payload, metadata)))

    def _hold(self, front: NativeGrpcFront, call: int, held: Held) -> None:
        future = asyncio.run_coroutine_threadsafe(held(), self._loop)
        self._held[call] = future
        future.add_done_callback(partial(self._let_go, front, call))

    def _let_go(self, front: NativeGrpcFront, call: int, future: concurrent.futures.Future[bytes]) -> None:
        del self._held[call]
        if not future.cancelled():
            front.respond(call, future.result())
