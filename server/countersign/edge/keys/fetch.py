"""One fetch of one key set over HTTP, and never more than its limits.

The URL comes from a policy and never from a token. No redirect is followed: keys are where the policy says, or where
the issuer's OpenID configuration says, and nowhere else.
"""

import asyncio
import logging
import os
import ssl
import time
from collections.abc import AsyncIterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import httpcore
import httpx

from countersign.core.jwt_rule import RemoteKeys
from countersign.edge.keys.access import Access, IpAddress
from countersign.edge.keys.connect import CONNECT_TIMEOUT, CheckedBackend, Transport
from countersign.edge.keys.freshness import Freshness, Validators, conditions, freshness, retry_after, validators
from countersign.edge.keys.names import AddressError
from countersign.edge.keys.stage import Stage
from countersign.edge.keys.url import HttpUrl, UrlError
from countersign.tokens.keys import MAX_TEXT, KeySet, KeySetError
from countersign.tokens.strict_json import JsonError, loads

logging.getLogger("httpx").setLevel(logging.WARNING)  # it would tell each fetch, and the fetcher tells what changed

DISCOVERY: Final = "/.well-known/openid-configuration"  # OpenID Connect Discovery 1.0, section 4

_HEADERS: Final[Mapping[str, str]] = {
    "accept": "application/jwk-set+json, application/json",
    "accept-encoding": "identity",  # what is not compressed cannot be a bomb
    "user-agent": "countersign",
    "connection": "close",
}
_OK: Final = 200
_REDIRECTS: Final = range(300, 400)
_NOT_MODIFIED: Final = 304


class FetchError(Exception):
    """A fetch that has brought nothing usable. The text is short and repeats nothing that was received.

    ``retry_after``: how long the issuer asks to be left alone, in seconds; None if it does not say.
    """

    def __init__(self, text: str, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What a fetch has brought. ``keys`` and ``text`` are None if the issuer says that nothing has changed."""

    keys: KeySet | None
    text: str | None
    freshness: Freshness = Freshness()  # noqa: RUF009 (frozen)
    validators: Validators | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    text: str | None  # None: not modified
    freshness: Freshness
    validators: Validators | None


async def fetch(source: RemoteKeys, access: Access, known: Validators | None = None) -> Fetched:
    """Fetch a key set, within ``source.timeout`` seconds in all. Raise `FetchError`.

    With the ``known`` validators of an earlier answer, an unchanged set is not sent again.
    """
    stage = Stage()
    try:
        async with asyncio.timeout(source.timeout):  # over everything, so that no drip of octets can prolong it
            return await _fetch(source, access, known, stage)
    except TimeoutError as error:
        raise _late(source.timeout, stage) from error


async def get(uri: str, access: Access, timeout: float) -> str:  # noqa: ASYNC109 (of the whole)
    """The text at a URL, within the same limits. Raise `FetchError`."""
    stage = Stage()
    try:
        async with asyncio.timeout(timeout):
            return (await _get(_url(uri), access, None, stage)).text or ""
    except TimeoutError as error:
        raise _late(timeout, stage) from error


def _late(timeout: float, stage: Stage) -> FetchError:
    return FetchError(f"no whole answer within {timeout:g} s: still {stage.text}")


async def _fetch(source: RemoteKeys, access: Access, known: Validators | None, stage: Stage) -> Fetched:
    url = _url(source.uri)
    if source.discover:
        configuration = await _get(url, access, None, stage)
        url = discovered(configuration.text or "", url)
    answer = await _get(url, access, known, stage)
    if answer.text is None:
        return Fetched(keys=None, text=None, freshness=answer.freshness, validators=known)
    try:
        keys = await asyncio.to_thread(KeySet.parse, answer.text)
    except KeySetError as error:
        raise FetchError(str(error)) from error
    return Fetched(keys=keys, text=answer.text, freshness=answer.freshness, validators=answer.validators)


def trust(ca_file: Path | None) -> ssl.SSLContext:
    """The authorities that vouch for an issuer: the file's, else the public ones. Raise `FetchError`."""
    try:
        context = httpcore.default_ssl_context() if ca_file is None else ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:  # and never another authority instead
        raise FetchError(f"the CA file {ca_file} cannot be used") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def discovered(text: str, configuration: HttpUrl) -> HttpUrl:
    """``jwks_uri`` of an OpenID configuration (OpenID Connect Discovery 1.0, 3 and 4.3). Raise `FetchError`."""
    try:
        document = loads(text)
    except JsonError as error:
        raise FetchError("the OpenID configuration is not JSON") from error
    if not isinstance(document, dict):
        raise FetchError("the OpenID configuration is no object")
    issuer = document.get("issuer")
    if not isinstance(issuer, str) or issuer.removesuffix("/") + DISCOVERY != configuration.text:
        raise FetchError("the OpenID configuration is of another issuer")
    uri = document.get("jwks_uri")
    if not isinstance(uri, str):
        raise FetchError("the OpenID configuration has no jwks_uri")
    found = _url(uri)
    if configuration.scheme == "https" and found.scheme != "https":
        raise FetchError("the OpenID configuration leads from https to http")
    return found


def _url(text: str) -> HttpUrl:
    try:
        return HttpUrl.parse(text)
    except UrlError as error:
        raise FetchError(str(error)) from error


async def _get(url: HttpUrl, access: Access, known: Validators | None, stage: Stage) -> _Answer:
    asked = conditions(known, url.text)
    tls = await asyncio.to_thread(trust, access.ca_file) if "https" in (url.scheme, access.proxy[:5]) else None
    # A client for each request: no cookie and no connection is carried along, nor a proxy of the environment.
    transport = _transport(url, tls, access, stage)
    try:
        async with (
            httpx.AsyncClient(transport=transport, trust_env=False, headers=_HEADERS) as client,
            client.stream(
                "GET",
                url.text,
                headers=asked,
                extensions={"trace": stage.follow},
                timeout=None,  # `fetch` has one
            ) as response,
        ):
            headers = response.headers
            if response.status_code == _NOT_MODIFIED and asked:
                return _Answer(text=None, freshness=freshness(headers), validators=known)
            _check(response.status_code, headers)
            body = await _read(response.aiter_raw())
    except httpcore.ProxyError as error:
        raise FetchError("the proxy refuses") from error
    except (AddressError, httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as error:
        raise FetchError(_network(error)) from error
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise FetchError("the body is not UTF-8") from error
    return _Answer(text=text, freshness=freshness(headers), validators=validators(url.text, headers))


def _transport(url: HttpUrl, tls: ssl.SSLContext | None, access: Access, stage: Stage) -> Transport:
    plaintext = url.scheme == "http"

    def wrong_with(address: IpAddress) -> str:
        return access.wrong_with(address, plaintext=plaintext)

    if not access.proxy:
        direct = CheckedBackend(wrong_with, stage=stage)
        return Transport(httpcore.AsyncConnectionPool(ssl_context=tls, network_backend=direct), direct)
    if plaintext and not access.insecure_http:
        raise FetchError("http without TLS goes through no proxy, unless `insecureHttp` allows it")
    try:
        wrong = wrong_with(ip_address(url.host))
    except ValueError:
        wrong = ""  # a name: the proxy resolves it
    if wrong:
        raise FetchError(wrong)
    proxy = httpcore.Proxy(access.proxy)
    backend = CheckedBackend(wrong_with, frozenset({HttpUrl.parse(access.proxy).host}), stage=stage)
    return Transport(httpcore.AsyncConnectionPool(ssl_context=tls, proxy=proxy, network_backend=backend), backend)


def _check(status: int, headers: Mapping[str, str]) -> None:
    if status in _REDIRECTS and status != _NOT_MODIFIED:
        raise FetchError(f"status {status}: redirects are not followed")
    if status != _OK:
        raise FetchError(f"status {status}", retry_after(status, headers, time.time()))
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise FetchError("a compressed body, which was not asked for")


async def _read(chunks: AsyncIterable[bytes]) -> bytes:
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > MAX_TEXT:
            raise FetchError(f"a body of more than {MAX_TEXT} octets")
    return bytes(body)


def _network(error: Exception) -> str:
    """What went wrong, in words of ours, the system's or OpenSSL's: the library's may repeat what was received."""
    cause: BaseException | None = error
    while cause is not None:
        match cause:
            case AddressError():
                return str(cause)
            case httpcore.ConnectTimeout():
                return f"cannot connect: no answer within {CONNECT_TIMEOUT:g} s"
            case ssl.SSLCertVerificationError():
                return f"the certificate is not trusted: {cause.verify_message}"
            case ssl.SSLError():
                return "no TLS connection"
            case OSError() if cause.errno:
                return f"cannot connect: {os.strerror(cause.errno)}"
            case _:
                cause = cause.__cause__ or cause.__context__
    return type(error).__name__
