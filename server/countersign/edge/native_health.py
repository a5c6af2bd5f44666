"""grpc.health.v1 on the native front. Source: the gRPC Health Checking Protocol.

Calls come on the thread of the front, news from the event loop: the lock is for health alone, no check takes it.
"""

import threading
from typing import Final

from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2
from pygrpc_native import STREAM_SENT, NativeGrpcFront

from countersign.edge.server import SERVICES

CHECK: Final = "/grpc.health.v1.Health/Check"
WATCH: Final = "/grpc.health.v1.Health/Watch"

_MAX_WATCHERS: Final = 1024

# grpc::StatusCode
_NOT_FOUND: Final = 5
_RESOURCE_EXHAUSTED: Final = 8
_INTERNAL: Final = 13

_Status = health_pb2.HealthCheckResponse


def _encoded(status: int) -> bytes:
    return bytes(_Status(status=status).SerializeToString())


_SERVING: Final = _encoded(_Status.SERVING)
_NOT_SERVING: Final = _encoded(_Status.NOT_SERVING)
_SERVICE_UNKNOWN: Final = _encoded(_Status.SERVICE_UNKNOWN)


class NativeHealth:
    """Answers and watchers of one front."""

    def __init__(self, front: NativeGrpcFront) -> None:
        self._front = front
        self._lock = threading.Lock()
        self._said = _NOT_SERVING
        self._draining = False
        self._watchers: dict[int, str] = {}

    def check(self, call: int, payload: bytes) -> None:
        """Answer ``Check``."""
        service = self._service(call, payload)
        if service in SERVICES:
            self._front.respond(call, self._said)
        elif service is not None:
            self._front.fail(call, _NOT_FOUND, "no such service")

    def watch(self, call: int, payload: bytes) -> None:
        """Answer ``Watch``: what is the case, and from now on what becomes of it."""
        service = self._service(call, payload)
        if service is None:
            return
        with self._lock:
            if len(self._watchers) >= _MAX_WATCHERS:
                self._front.fail(call, _RESOURCE_EXHAUSTED, "too many watchers of this server's health")
                return
            self._watchers[call] = service
            self._front.stream_try_send(call, self._said if service in SERVICES else _SERVICE_UNKNOWN)

    def leave(self, call: int) -> None:
        """Whoever called does not wait any more."""
        if call in self._watchers:
            with self._lock:
                self._watchers.pop(call, None)

    def say(self, *, serving: bool) -> None:
        """Tell whoever asks, and whoever watches. Nothing once draining has begun."""
        with self._lock:
            if not self._draining:
                self._tell(_SERVING if serving else _NOT_SERVING)

    def drain(self) -> None:
        """Say NOT_SERVING from now on."""
        with self._lock:
            self._draining = True
            self._tell(_NOT_SERVING)

    def _tell(self, said: bytes) -> None:
        if said == self._said:
            return
        self._said = said
        for call, service in list(self._watchers.items()):
            # Who does not read is let go, and may ask again: nothing is kept for it.
            if service in SERVICES and self._front.stream_try_send(call, said) != STREAM_SENT:
                del self._watchers[call]
                self._front.fail(call, _RESOURCE_EXHAUSTED, "the watcher does not read")

    def _service(self, call: int, payload: bytes) -> str | None:
        try:
            return str(health_pb2.HealthCheckRequest.FromString(payload).service)
        except DecodeError:
            self._front.fail(call, _INTERNAL, "not a HealthCheckRequest")
            return None
