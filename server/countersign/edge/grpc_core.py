"""grpcio's asyncio server, which no call can end.

One task of it takes all calls, and decodes the path of each as UTF-8: the first that is not ends the task, and with it
the server, or, while somebody watches its health, everything of it but the process. Paths of methods that are
registered are not decoded. So ours are registered, and calls of others are taken here and refused unread.

This uses what grpcio does not publish, and needs a look at each of its releases.
Source: grpc/_cython/_cygrpc/aio/server.pyx.pxi, `AioServer` (1.84 and later).
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Final

from grpc._cython.cygrpc import AioServer, _handle_rpc, _MethodResolver, _schedule_rpc_coro
from grpc.aio import _server

_log: Final = logging.getLogger(__name__)

_OTHER: Final = "(a method that is not here)"  # in grpcio's own log

Options = Sequence[tuple[str, int]]


class _Core(AioServer):  # type: ignore[misc]  # the module has no types
    """``crashed`` gets the exception of the task that takes calls, should anything else end it."""

    def __init__(self, options: Options) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(loop, None, (), (), tuple(options), None)
        self.crashed: asyncio.Future[None] = loop.create_future()

    def _make_request_call_future(self, method: bytes | None) -> "asyncio.Future[Any]":
        if method is None:
            return asyncio.ensure_future(self._refuse_others())
        future: asyncio.Future[Any] = super()._make_request_call_future(method)
        return future

    async def _refuse_others(self) -> None:
        """Answer UNIMPLEMENTED to whoever calls what is not registered. Ends with the server, by its exception."""
        loop = asyncio.get_running_loop()
        nothing = _MethodResolver([], {})
        refusals: set[asyncio.Task[None]] = set()
        while True:
            call = await self._request_call()
            try:
                refusal = _handle_rpc(_OTHER, nothing, (), call, loop, False)  # noqa: FBT003 (grpcio's own order)
                task = loop.create_task(_schedule_rpc_coro(refusal, call, loop, _OTHER))
            except TypeError:  # of a grpcio to come: whoever has called waits in vain, and nobody else does
                _log.exception("a call of another method is not answered: this grpcio is none that is known")
                continue
            refusals.add(task)  # the loop holds it weakly
            task.add_done_callback(refusals.discard)

    def _serving_task_crash_handler(self, task: "asyncio.Task[None]") -> None:
        super()._serving_task_crash_handler(task)
        if not task.cancelled() and (error := task.exception()) and not self.crashed.done():
            self.crashed.set_exception(error)


class Core(_server.Server):
    """`grpc.aio.server`, for registered methods alone. To be made on a running event loop."""

    def __init__(self, options: Options) -> None:
        self._loop = asyncio.get_running_loop()
        self._server = _Core(options)

    async def ended(self) -> None:
        """Return when the server has ended, and raise what ended it."""
        ends = {asyncio.ensure_future(self.wait_for_termination()), self._server.crashed}
        done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for end in done:
            end.result()
