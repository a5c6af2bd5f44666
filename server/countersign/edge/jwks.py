"""Key sets over HTTP: fetches what the keyring wants, beside the request path, and never more than its limits.

The URL comes from a policy and never from a token. httpx is used here only, and imported with the first fetch,
because that costs 100 ms.
"""

import asyncio
import ipaddress
import logging
import random
import re
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from countersign.core.jwt_rule import RemoteKeys
from countersign.tokens.keyring import Keyring, SourceState
from countersign.tokens.keys import MAX_TEXT, KeySet, KeySetError
from countersign.tokens.strict_json import JsonError, loads

CONNECT_TIMEOUT: Final = 2.0  # seconds; the rule's own timeout bounds the whole fetch

_HEADERS: Final[Mapping[str, str]] = {
    "accept": "application/jwk-set+json, application/json",
    "accept-encoding": "identity",  # what is not compressed cannot be a bomb
    "user-agent": "countersign",
}
_MAX_AGE: Final = re.compile(r"max-age=([0-9]{1,9})")
_METADATA_V6: Final = ipaddress.ip_address("fd00:ec2::254")
_OK: Final = 200

_log = logging.getLogger(__name__)

KeySets = Mapping[RemoteKeys, KeySet]
_Flight = asyncio.Task[tuple[KeySet, float | None]]


class FetchError(Exception):
    """A fetch that has brought nothing usable. The text is short and repeats nothing that was received."""


class KeyFetcher:
    """Fetches the tracked key sets. ``on_change`` gets the new mapping whenever the keys change.

    ``on_landing`` is called when a fetch has ended, well or not. Everything happens on one event loop. ``ca_file``
    replaces the public authorities that HTTPS trusts.
    """

    def __init__(
        self,
        on_change: Callable[[KeySets], None],
        *,
        on_landing: Callable[[], None] = lambda: None,
        ca_file: Path | None = None,
    ) -> None:
        self._keyring = Keyring()
        self._on_change = on_change
        self._on_landing = on_landing
        self._ca_file = ca_file
        self._published = self._keyring.keys()
        self._flights: dict[RemoteKeys, _Flight] = {}
        self._woken = asyncio.Event()
        self._tls: ssl.SSLContext | None = None

    def track(self, sources: Iterable[RemoteKeys]) -> None:
        """Fetch these from now on, and forget all others."""
        self._keyring.track(sources, time.monotonic())
        self._publish()
        self._woken.set()

    def states(self) -> tuple[SourceState, ...]:
        """Every tracked source, for operators; times are those of ``time.monotonic``."""
        return self._keyring.states()

    def refresh(self, source: RemoteKeys) -> asyncio.Future[None] | None:
        """A future that is done when the fetch for a missed key has ended, well or not.

        Whoever misses a key while a fetch is under way waits for that one. None if the cooldown forbids to fetch:
        there is nothing to wait for. Cancelling the future cancels no fetch.
        """
        if not self._keyring.key_missed(source, time.monotonic()):
            return None
        landed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def land(_: _Flight) -> None:
            if not landed.done():
                landed.set_result(None)

        self._start(source)
        self._flights[source].add_done_callback(land)
        return landed

    async def run(self) -> None:
        """Fetch whatever is due, until cancelled."""
        try:
            while True:
                self._woken.clear()
                for source in self._keyring.due(time.monotonic()):
                    self._start(source)
                self._publish()
                next_due = self._keyring.next_due()
                try:
                    async with asyncio.timeout(None if next_due is None else max(next_due - time.monotonic(), 0)):
                        await self._woken.wait()
                except TimeoutError:
                    continue
        finally:
            flights = tuple(self._flights.values())
            for flight in flights:
                flight.cancel()
            await asyncio.gather(*flights, return_exceptions=True)

    def _start(self, source: RemoteKeys) -> None:
        self._keyring.started(source)
        if source not in self._flights:
            flight = asyncio.create_task(self._fetch(source), name=f"jwks {source.uri}")
            self._flights[source] = flight
            # The first of its callbacks: whoever waits for the flight finds the keys in place.
            flight.add_done_callback(lambda flight: self._land(source, flight))

    def _land(self, source: RemoteKeys, flight: _Flight) -> None:
        del self._flights[source]
        if flight.cancelled():
            return
        now, jitter = time.monotonic(), random.random()  # noqa: S311 (spreads load, hides nothing)
        error = flight.exception()
        if error is None:
            keys, max_age = flight.result()
            self._keyring.fetched(source, keys, now, max_age, jitter=jitter)
            for rejected in keys.rejected:
                _log.warning("key %d of %s is not used: %s", rejected.index, source.uri, rejected.why)
        else:
            text = _describe(error, source)
            self._keyring.failed(source, text, now, jitter=jitter)
            _log.warning("no keys from %s: %s", source.uri, text)
        self._publish()
        self._on_landing()
        self._woken.set()

    def untried(self) -> tuple[str, ...]:
        """The URIs of tracked sources of which no fetch has ended yet."""
        return tuple(s.source.uri for s in self._keyring.states() if s.fetched_at is None and not s.failures)

    def _publish(self) -> None:
        keys = self._keyring.keys()
        if keys is not self._published:
            self._published = keys
            self._on_change(keys)

    async def _fetch(self, source: RemoteKeys) -> tuple[KeySet, float | None]:
        async with asyncio.timeout(source.timeout):  # over everything, so that no drip of octets can prolong it
            if self._tls is None:
                self._tls = await asyncio.to_thread(_prepare, self._ca_file)
            text, max_age = await _get(source.uri, self._tls)
            if source.discover:
                text, max_age = await _get(_discovered(text), self._tls)
        return KeySet.parse(text), max_age


def _prepare(ca_file: Path | None) -> ssl.SSLContext:
    """Import httpx and read the trusted roots: both are slow, so in a thread."""
    import httpx  # noqa: PLC0415 (100 ms)

    return httpx.create_ssl_context(trust_env=False) if ca_file is None else ssl.create_default_context(cafile=ca_file)


async def _get(uri: str, tls: ssl.SSLContext) -> tuple[str, float | None]:
    import httpx  # noqa: PLC0415 (100 ms)

    url = httpx.URL(uri)
    if url.scheme not in ("http", "https") or not url.host or url.userinfo:
        raise FetchError("not an http or https URL of a host without credentials")
    # A client for each fetch: no cookie, no connection and no proxy is carried along.
    async with (
        httpx.AsyncClient(
            verify=tls,
            trust_env=False,
            follow_redirects=False,
            headers=_HEADERS,
            timeout=httpx.Timeout(None, connect=CONNECT_TIMEOUT),
        ) as client,
        client.stream("GET", url) as response,
    ):
        _check_address(response.extensions["network_stream"].get_extra_info("server_addr")[0])
        if response.status_code != _OK:
            raise FetchError(f"status {response.status_code}")
        if response.headers.get("content-encoding", "identity") != "identity":
            raise FetchError("a compressed body, which was not asked for")
        body = await _read(response.aiter_raw())
        max_age = _max_age(response.headers.get("cache-control", ""))
    try:
        return body.decode(), max_age
    except UnicodeDecodeError as error:
        raise FetchError("the body is not UTF-8") from error


def _check_address(text: str) -> None:
    """Cloud metadata is no issuer. Checked on the connection, because a name may resolve otherwise each time."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if address.is_link_local or address == _METADATA_V6:
        raise FetchError("the host has a link-local address")


def _discovered(text: str) -> str:
    """``jwks_uri`` of an OpenID configuration (OpenID Connect Discovery 1.0, section 3)."""
    try:
        document = loads(text)
    except JsonError as error:
        raise FetchError("the OpenID configuration is not JSON") from error
    uri = document.get("jwks_uri") if isinstance(document, dict) else None
    if not isinstance(uri, str):
        raise FetchError("the OpenID configuration has no jwks_uri")
    return uri


async def _read(chunks: AsyncIterator[bytes]) -> bytes:
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > MAX_TEXT:
            raise FetchError(f"a body of more than {MAX_TEXT} octets")
    return bytes(body)


def _max_age(cache_control: str) -> float | None:
    """``max-age`` in seconds (RFC 9111 5.2.2.1); None if the answer does not say."""
    for directive in cache_control.lower().split(","):
        found = _MAX_AGE.fullmatch(directive.strip())
        if found:
            return float(found[1])
    return None


def _describe(error: BaseException, source: RemoteKeys) -> str:
    match error:
        case TimeoutError():
            return f"no whole answer within {source.timeout:g} s"
        case FetchError() | KeySetError():
            return str(error)
        case _:  # the library's texts may repeat what was received
            return type(error).__name__
