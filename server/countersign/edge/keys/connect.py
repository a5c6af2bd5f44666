"""Connections to issuers: the address is resolved, checked, and that very address is connected to.

A check of the name before or of the peer after the connection leaves a gap: a name may resolve otherwise each time
(DNS rebinding), and a connection alone already tells what listens inside a network.
"""

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from typing import cast

import httpcore
import httpx

from countersign.edge.keys.access import IpAddress
from countersign.edge.keys.names import AddressError, by_name
from countersign.edge.keys.stage import Stage

CONNECT_TIMEOUT = 2.0  # seconds, for each address


Resolve = Callable[[str, int], Awaitable[list[IpAddress]]]


class CheckedBackend(httpcore.AsyncNetworkBackend):
    """Connects only where ``wrong_with`` finds nothing wrong. A host named in ``trusted``, a proxy, is not asked about.

    Each connection asks ``resolve`` once, and tells ``stage`` what it is at.
    """

    def __init__(
        self,
        wrong_with: Callable[[IpAddress], str],
        trusted: frozenset[str] = frozenset(),
        resolve: Resolve | None = None,
        stage: Stage | None = None,
    ) -> None:
        self._wrong_with = wrong_with
        self._trusted = trusted
        self._resolve = resolve or by_name
        self._stage = stage or Stage()
        self._backend = httpcore.AnyIOBackend()
        self._made: list[httpcore.AsyncNetworkStream] = []

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 (httpcore's signature)
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Try each allowed address of the host in turn. Raise `AddressError` if there is none."""
        failure: Exception = AddressError("the host has no address")
        whom = "the proxy" if host in self._trusted else "the host"
        self._stage.text = f"resolving the name of {whom}"
        addresses = await self._resolve(host, port)
        self._stage.text = f"connecting to {whom}"
        for address in addresses:
            wrong = "" if host in self._trusted else self._wrong_with(address)
            if wrong:
                failure = AddressError(wrong)
                continue
            try:
                stream = await self._backend.connect_tcp(
                    str(address), port, min(timeout or CONNECT_TIMEOUT, CONNECT_TIMEOUT), local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                self._made.append(stream)
                return stream
        raise failure

    async def aclose(self) -> None:
        """Close what was connected: httpcore forgets a connection whose TLS handshake is cancelled."""
        for stream in self._made:
            await stream.aclose()


class Transport(httpx.AsyncBaseTransport):
    """httpx on connections of ours: httpx itself has no place where an address can be chosen, httpcore below it has."""

    def __init__(self, pool: httpcore.AsyncConnectionPool, backend: CheckedBackend) -> None:
        self._pool = pool
        self._backend = backend

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request. Raise `AddressError`, or httpcore's errors."""
        url = request.url
        response = await self._pool.handle_async_request(
            httpcore.Request(
                request.method,
                httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                headers=request.headers.raw,
                content=request.stream,
                extensions=request.extensions,
            )
        )
        return httpx.Response(response.status, headers=response.headers, stream=_Body(response))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._pool.aclose()
        await self._backend.aclose()


class _Body(httpx.AsyncByteStream):
    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in cast("AsyncIterable[bytes]", self._response.stream):
            yield part

    async def aclose(self) -> None:
        await self._response.aclose()
