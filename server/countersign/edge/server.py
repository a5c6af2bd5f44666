"""What a transport is to the rest: bytes in, bytes out, health, and an orderly end.

Two do it: `countersign.edge.grpc_server` and `countersign.edge.native_server`. The same tests hold for both.
"""

from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

from countersign.core.decision import Deny
from countersign.edge.metadata import Metadata
from countersign.wire.codec import SERVICE

MAX_RECEIVE: Final = 4 * 1024 * 1024  # bytes: Envoy's 60 KiB of headers, a body where one is sent, and room
MAX_STREAMS: Final = 1024  # calls at a time on one connection: what Envoy's circuit breaker lets through by default
SERVICES: Final = ("", SERVICE)  # the names that health is asked for
SOCKET_UMASK: Final = 0o117  # so that a socket is never open to others, not even for a moment

# What is left to do for a held check, on the event loop; its result is the answer.
Held = Callable[[], Coroutine[Any, Any, bytes]]


class Authorizer(Protocol):
    """Answers checks: a serialized CheckRequest to a serialized CheckResponse. Never raises.

    Any of it may run on a thread of the transport's own.
    """

    def answer(self, payload: bytes, time_remaining: float | None, metadata: Metadata = (), /) -> bytes | Held:
        """The answer, within so many seconds (None: endless)."""

    def shed(self, payload: bytes, metadata: Metadata = (), /) -> bytes:
        """The answer to a check that is one too many."""

    def refuse(self, payload: bytes, denial: Deny, metadata: Metadata = (), /) -> bytes:
        """The answer to a check of somebody who may not ask."""


class Server(Protocol):
    """Serves checks. Says NOT_SERVING until told otherwise. Every method belongs to one event loop."""

    async def start(self) -> None:
        """Bind and accept. Raise OSError, naming the address, where that is not possible."""

    async def set_serving(self, *, serving: bool) -> None:
        """Tell health checks, for the whole server and for the service by name."""

    async def ended(self) -> None:
        """Return when the server has ended, and raise what ended it."""

    async def drain(self, grace: float) -> None:
        """Say NOT_SERVING, give running checks at most ``grace`` seconds to end, and close."""
