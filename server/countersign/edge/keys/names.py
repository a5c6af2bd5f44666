"""The addresses of a name, asked of the system on threads of its own.

getaddrinfo(3) cannot be stopped, and where no name server answers, it takes 10 seconds and more. On the event loop's
threads, which everything else shares, it would hold up a reload of policies; on any that Python waits for, a stop.
"""

import asyncio
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from ipaddress import ip_address
from queue import SimpleQueue
from typing import Final

from countersign.edge.keys.access import IpAddress

_MOST: Final = 32  # threads: as many as the event loop's own at the most


class AddressError(Exception):
    """No address of the host may be connected to."""


def of_system(host: str, port: int) -> list[IpAddress]:
    """What getaddrinfo(3) says, as long as that takes. Raise `AddressError`."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [ip_address(str(sockaddr[0]).partition("%")[0]) for *_, sockaddr in found]
    except (OSError, ValueError) as error:
        raise AddressError("the host's name cannot be resolved") from error
    return list(dict.fromkeys(addresses))


class Names:
    """Asks about as many names at a time as ``most``; others wait for their turn. Of one event loop at a time."""

    def __init__(self, ask: Callable[[str, int], list[IpAddress]] = of_system, most: int = _MOST) -> None:
        self._ask = ask
        self._most = most
        self._threads = 0
        self._idle = threading.Semaphore(0)
        self._asked: SimpleQueue[tuple[str, int, Future[list[IpAddress]]]] = SimpleQueue()

    async def addresses(self, host: str, port: int) -> list[IpAddress]:
        """The addresses of a host, in the order that the system prefers. Raise `AddressError`."""
        answer: Future[list[IpAddress]] = Future()
        self._asked.put((host, port, answer))
        if not self._idle.acquire(blocking=False) and self._threads < self._most:
            threading.Thread(target=self._answer, name=f"names {self._threads}", daemon=True).start()
            self._threads += 1
        return await asyncio.wrap_future(answer)

    def _answer(self) -> None:
        while True:
            host, port, answer = self._asked.get()
            if answer.set_running_or_notify_cancel():  # somebody still wants to know
                try:
                    answer.set_result(self._ask(host, port))
                except AddressError as error:
                    answer.set_exception(error)
            self._idle.release()


_SYSTEM: Final = Names()  # one of a process: threads are


async def by_name(host: str, port: int) -> list[IpAddress]:
    """The addresses of a host, as the system knows them. Raise `AddressError`."""
    return await _SYSTEM.addresses(host, port)
