"""One run of one worker process, as the supervisor sees it: started, fed, listened to, ended by its own pid."""

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Final

from countersign.workers.messages import Start, packed, received
from countersign.workers.outbox import Outbox

_COMMAND: Final = (sys.executable, "-P", "-m", "countersign.workers")  # -P: nothing from the current directory

_LAST_STEPS: Final = 5.0  # seconds from a worker's last word to its end


class Process:
    """A worker process that runs, with our end of its pipe."""

    def __init__(self, process: asyncio.subprocess.Process, pipe: socket.socket) -> None:
        self._process = process
        self._pipe = pipe

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    async def converse(self, start: Start, outbox: Outbox, on_message: Callable[[object], None]) -> int:
        """Send it what the outbox gets, and hear what it says, until it ends. Give its exit code.

        Cancelled, it is killed.
        """
        reader, writer = await asyncio.open_connection(sock=self._pipe)
        writer.write(packed(start))
        sending = asyncio.create_task(outbox.send(writer), name=f"to worker {self.pid}")
        try:
            while (message := await received(reader)) is not None:
                on_message(message)
            sending.cancel()
            writer.close()  # it waits until it has been heard
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), _LAST_STEPS)
        finally:
            self.signal(signal.SIGKILL)
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            writer.close()
        return await self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)


async def begin(keep: Sequence[int] = ()) -> Process:
    """Start a process, which also has these file descriptors. Raise OSError where that is not possible."""
    ours, theirs = socket.socketpair()
    with theirs:  # then the worker alone has it: each end is told when the other has gone
        try:
            process = await asyncio.create_subprocess_exec(
                *_COMMAND,
                str(theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), *keep),
                start_new_session=True,  # a Ctrl-C is the supervisor's to pass on
            )
        except BaseException:
            ours.close()
            raise
    return Process(process, ours)
