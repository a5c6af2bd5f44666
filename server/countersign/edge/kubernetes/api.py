"""One collection of objects in the API server: list it, and watch it from there.

Source: kubernetes.io, "Kubernetes API Concepts": resource versions, efficient detection of changes, watch bookmarks,
retrieving large results sets in chunks.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import httpx2

from countersign.edge.kubernetes.connect import FAULTS

GROUP: Final = "security.istio.io"
VERSIONS: Final = ("v1", "v1beta1")  # the first that is served
PLURALS: Final = {
    "AuthorizationPolicy": "authorizationpolicies",
    "PeerAuthentication": "peerauthentications",
    "RequestAuthentication": "requestauthentications",
}

_PAGE: Final = 250  # objects
_PAGE_BYTES: Final = 64 * 1024 * 1024
_LINE_BYTES: Final = 8 * 1024 * 1024  # etcd takes no object beyond 1.5 MiB
_LIST_SECONDS: Final = 30.0  # for a page
_SAID: Final = 300  # characters of an answer that are worth telling
_HEADERS: Final = {
    "accept": "application/json",
    "accept-encoding": "identity",  # what is not compressed cannot be a bomb
    "user-agent": "countersign",
}
_OK, _UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND, _GONE, _BUSY, _UNAVAILABLE = 200, 401, 403, 404, 410, 429, 503

Object = Mapping[str, Any]


class ApiError(Exception):
    """The API server has not given what was asked for. The text says why, without what it has sent beyond its words.

    ``status`` is that of the answer, 0 where there was none. ``retry_after`` is in seconds. ``again``: whether a watch
    may go on where it was; otherwise only a new list tells what is so now.
    """

    def __init__(self, text: str, status: int = 0, retry_after: float | None = None, *, again: bool = True) -> None:
        super().__init__(text)
        self.status = status
        self.retry_after = retry_after
        self.again = again

    @property
    def is_gone(self) -> bool:
        """Whether the version that was asked for is too old: no fault of anybody's."""
        return self.status == _GONE

    @property
    def is_not_served(self) -> bool:
        """Whether there is no such kind, in this version."""
        return self.status == _NOT_FOUND


class Change(StrEnum):
    """What an event of a watch says. The wire's own words."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"


@dataclass(frozen=True, slots=True)
class Event:
    """One event. ``resource_version`` is where a later watch goes on."""

    change: Change
    object: Object
    resource_version: str


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list. ``proceed`` asks for the next; empty with the last."""

    objects: tuple[Object, ...]
    resource_version: str
    proceed: str


@dataclass(frozen=True, slots=True)
class Collection:
    """All objects of a kind, in one namespace or (empty) in all."""

    kind: str
    namespace: str = ""

    def __str__(self) -> str:
        """As it is told."""
        return f"{self.kind} in {self.namespace}" if self.namespace else self.kind

    def path(self, version: str) -> str:
        """Where it is."""
        within = f"namespaces/{self.namespace}/" if self.namespace else ""
        return f"apis/{GROUP}/{version}/{within}{PLURALS[self.kind]}"


async def pages(client: httpx2.AsyncClient, path: str) -> AsyncGenerator[Page]:
    """The whole list as it is now, not as a cache remembers it. Raise `ApiError`."""
    parameters = {"limit": str(_PAGE)}
    while True:
        try:
            async with asyncio.timeout(_LIST_SECONDS):
                page = _page(await _get(client, path, parameters))
        except TimeoutError as error:
            raise ApiError(f"no whole list within {_LIST_SECONDS:g} s") from error
        except FAULTS as error:
            raise _lost(error) from error
        yield page
        if not page.proceed:
            return
        parameters["continue"] = page.proceed


@asynccontextmanager
async def watching(
    client: httpx2.AsyncClient, path: str, resource_version: str, seconds: int
) -> AsyncIterator[AsyncGenerator[Event]]:
    """What changes after a version, for so many seconds. Inside it the server has agreed. Raise `ApiError`."""
    parameters = {
        "watch": "true",
        "allowWatchBookmarks": "true",
        "resourceVersion": resource_version,
        "timeoutSeconds": str(seconds),
    }
    timeout = httpx2.Timeout(client.timeout.connect, read=None)  # how long in all is the caller's to say
    try:
        async with client.stream("GET", path, params=parameters, headers=_HEADERS, timeout=timeout) as response:
            if response.status_code != _OK:
                raise await _refusal(response)
            yield _events(response)
    except FAULTS as error:
        raise _lost(error) from error


async def _events(response: httpx2.Response) -> AsyncGenerator[Event]:
    buffer = bytearray()
    async for piece in response.aiter_raw():
        buffer += piece
        if len(buffer) > _LINE_BYTES:
            raise ApiError(f"an event of more than {_LINE_BYTES} bytes", again=False)
        *lines, rest = buffer.split(b"\n") if b"\n" in piece else (buffer,)
        buffer = bytearray(rest)
        for line in lines:
            if line.strip():
                yield _event(bytes(line))


def _event(line: bytes) -> Event:
    message = _document(line)
    found, kind = message.get("object"), message.get("type")
    if not isinstance(found, dict) or (kind != "ERROR" and kind not in list(Change)):
        raise ApiError("an event that is none of the API's", again=False)
    if kind == "ERROR":
        code = found.get("code")
        status = code if isinstance(code, int) else 0
        raise ApiError(f"status {status}: {_words(found)}", status, again=status == _BUSY)
    return Event(Change(kind), found, _version(found))


def _page(document: Object) -> Page:
    items, metadata = document.get("items"), document.get("metadata")
    if items is None:
        items = []  # how Go may write an empty list
    if not isinstance(items, list) or not isinstance(metadata, dict) or not all(isinstance(it, dict) for it in items):
        raise ApiError("an answer that is no list", again=False)
    return Page(tuple(items), _version(document), str(metadata.get("continue") or ""))


def _version(document: Object) -> str:
    metadata = document.get("metadata")
    version = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
    if not isinstance(version, str) or not version:
        raise ApiError("an answer without `metadata.resourceVersion`", again=False)
    return version


async def _get(client: httpx2.AsyncClient, path: str, parameters: Mapping[str, str]) -> Object:
    async with client.stream("GET", path, params=parameters, headers=_HEADERS) as response:
        if response.status_code != _OK:
            raise await _refusal(response)
        body = await _body(response, _PAGE_BYTES)
    return await asyncio.to_thread(_document, body)


async def _body(response: httpx2.Response, most: int) -> bytes:
    body = bytearray()
    async for piece in response.aiter_raw():
        body += piece
        if len(body) > most:
            raise ApiError(f"an answer of more than {most} bytes")
    return bytes(body)


def _document(text: bytes) -> Object:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ApiError("an answer that is no JSON", again=False) from error
    if not isinstance(document, dict):
        raise ApiError("an answer that is no JSON object", again=False)
    return document


async def _refusal(response: httpx2.Response) -> ApiError:
    status = response.status_code
    try:
        async with asyncio.timeout(_LIST_SECONDS):
            words = _words(_document(await _body(response, _PAGE_BYTES)))
    except (ApiError, TimeoutError, *FAULTS):
        words = response.reason_phrase
    advice = {
        _UNAUTHORIZED: "; the API server does not take the credentials",
        _FORBIDDEN: "; grant get, list and watch, as deploy/kubernetes/cluster-policies does",
    }
    after = response.headers.get("retry-after", "")
    return ApiError(
        f"status {status}: {words}{advice.get(status, '')}",
        status,
        float(after) if after.isascii() and after.isdigit() and len(after) <= len("3600") else None,
        again=status in (_BUSY, _UNAVAILABLE, _UNAUTHORIZED),
    )


def _words(status: Object) -> str:
    """What the server says, on one line. Source: the kind Status of Kubernetes' meta/v1."""
    text = str(status.get("message") or status.get("reason") or "no reason given")
    return "".join(character if character.isprintable() else " " for character in text)[:_SAID]


def _lost(error: Exception) -> ApiError:
    text = " ".join(str(error).split())[:_SAID]
    return ApiError(f"{type(error).__name__}{': ' if text else ''}{text}")
