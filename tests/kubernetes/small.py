"""A small API server that speaks the real one's protocol for three kinds: lists in pages, watches, bookmarks, 410.

Written from "Kubernetes API Concepts". The same tests run against the real one (`make kubernetes`), which keeps this
one honest. What a real one does once in an hour, or only when it is ill, can be asked of this one.
"""

import json
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, NamedTuple, Self
from urllib.parse import parse_qs

GROUP: Final = "security.istio.io"
KINDS: Final = {
    "authorizationpolicies": "AuthorizationPolicy",
    "peerauthentications": "PeerAuthentication",
    "requestauthentications": "RequestAuthentication",
}
TOKEN: Final = "first-token"

Object = dict[str, Any]


class Failure(NamedTuple):
    """An answer in place of the right one. ``body`` is sent as it is; None for a Status with the ``status``."""

    status: int
    body: bytes | None = None
    retry_after: int | None = None


class _Entry(NamedTuple):
    version: int
    change: str
    plural: str
    object: Object


class SmallApiServer:
    """A context manager: serves on ``port`` inside it. Every attribute may be changed meanwhile."""

    scheme: Final = "http"
    ca_file: Final = ""

    def __init__(self, port: int) -> None:
        self.port = port
        self.tokens = {TOKEN}
        self.forbidden: set[str] = set()  # verbs, and plurals
        self.served = ["v1", "v1beta1"]
        self.failures: list[Failure] = []  # for the next requests, one each
        self.expiring = 0  # how many pages are not there any more when they are asked for
        self.used_tokens: list[str] = []
        self.times: list[float] = []  # of each request, in seconds of ``time.monotonic``
        self._asked: list[str] = []
        self._version = 100
        self._oldest = 0
        self._objects: dict[tuple[str, str, str], Object] = {}
        self._log: list[_Entry] = []
        self._pages: dict[str, list[Object]] = {}
        self._changed = threading.Condition()
        self._stopped = False

    def apply(self, *objects: Object) -> None:
        """Create or replace them, all at once."""
        with self._changed:
            for each in objects:
                plural = next(plural for plural, kind in KINDS.items() if kind == each["kind"])
                key = plural, each["metadata"]["namespace"], each["metadata"]["name"]
                self._put("MODIFIED" if key in self._objects else "ADDED", key, each)
            self._changed.notify_all()

    def delete(self, kind: str, namespace: str, name: str) -> None:
        """Delete one."""
        plural = next(plural for plural, known in KINDS.items() if known == kind)
        with self._changed:
            key = plural, namespace, name
            self._put("DELETED", key, self._objects[key])
            self._changed.notify_all()

    def forget(self) -> None:
        """Have no memory of what came before: whoever asks for it gets 410."""
        with self._changed:
            self._oldest = self._version = self._version + 1
            self._pages.clear()

    def asked(self) -> list[str]:
        """What was asked for, in order."""
        return list(self._asked)

    def say(self) -> None:
        """Send a bookmark to each watch, at a version that no object has."""
        with self._changed:
            self._version += 1
            self._log.append(_Entry(self._version, "BOOKMARK", "", {}))
            self._changed.notify_all()

    def say_nonsense(self) -> None:
        """Send each watch an event that is none."""
        with self._changed:
            self._version += 1
            self._log.append(_Entry(self._version, "NONSENSE", "", {}))
            self._changed.notify_all()

    @property
    def version(self) -> int:
        """The latest resource version."""
        return self._version

    def _put(self, change: str, key: tuple[str, str, str], given: Object) -> None:
        self._version += 1
        metadata = {**given["metadata"], "resourceVersion": str(self._version), "managedFields": [{"manager": "test"}]}
        found = {**given, "apiVersion": f"{GROUP}/v1", "metadata": metadata}
        if change == "DELETED":
            del self._objects[key]
        else:
            self._objects[key] = found
        self._log.append(_Entry(self._version, change, key[0], found))

    def __enter__(self) -> Self:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 30

            def do_GET(self) -> None:
                server.answer(self)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (http.server's name)
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, name="small API server", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._server.shutdown()
        self._server.server_close()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """One request."""
        path, _, query = handler.path.partition("?")
        self._asked.append(handler.path)
        self.times.append(time.monotonic())
        given = {name: values[0] for name, values in parse_qs(query).items()}
        token = handler.headers.get("authorization", "").removeprefix("Bearer ")
        failure = self.failures.pop(0) if self.failures else None
        refused = failure or self._refused(token, path, "watch" if "watch" in given else "list")
        if refused is not None:
            _send(handler, refused.status, _body(refused), refused.retry_after)
            return
        self.used_tokens.append(token)
        version, plural, namespace = _place(path)
        if "watch" in given:
            _stream(handler, self._watched(plural, namespace, version, given))
        else:
            self._list(handler, plural, namespace, version, given)

    def _refused(self, token: str, path: str, verb: str) -> Failure | None:
        version, plural, _ = _place(path)
        if token not in self.tokens:
            return Failure(401, _status(401, "Unauthorized"))
        if verb in self.forbidden or plural in self.forbidden:
            what = f'{plural}.{GROUP} is forbidden: User "countersign" cannot {verb} resource "{plural}"'
            return Failure(403, _status(403, what))
        if version not in self.served or plural not in KINDS:
            return Failure(404, b"404 page not found\n")
        return None

    def _list(
        self, handler: BaseHTTPRequestHandler, plural: str, namespace: str, version: str, given: Mapping[str, str]
    ) -> None:
        with self._changed:
            if "continue" in given:
                rest = self._pages.pop(given["continue"], None)
                if rest is None or self.expiring:
                    self.expiring = max(self.expiring - 1, 0)
                    words = "The provided continue parameter is too old to display a consistent list result."
                    _send(handler, 410, _status(410, words))
                    return
                at = given["continue"].split("-")[0]
            else:
                keys = sorted(key for key in self._objects if key[0] == plural and namespace in {"", key[1]})
                rest, at = [_in(version, self._objects[key]) for key in keys], str(self._version)
            limit = int(given.get("limit", len(rest) or 1))
            page, rest = rest[:limit], rest[limit:]
            proceed = f"{at}-{len(self._asked)}" if rest else ""
            if rest:
                self._pages[proceed] = rest
        metadata = {"resourceVersion": at, **({"continue": proceed} if proceed else {})}
        document = {"apiVersion": f"{GROUP}/{version}", "kind": "List", "metadata": metadata, "items": page}
        _send(handler, 200, json.dumps(document).encode())

    def _watched(self, plural: str, namespace: str, version: str, given: Mapping[str, str]) -> Iterator[bytes]:
        since = int(given["resourceVersion"])
        if since < self._oldest:
            words = f"too old resource version: {since} ({self._oldest})"
            yield json.dumps({"type": "ERROR", "object": json.loads(_status(410, words))}).encode() + b"\n"
            return
        yield b""  # the headers go out at once
        while True:
            with self._changed:
                news = [entry for entry in self._log if entry.version > since]
                if not news and not self._changed.wait(float(given["timeoutSeconds"])):
                    return
                if self._stopped:
                    return
            for entry in news:
                since = entry.version
                if entry.change == "NONSENSE":
                    yield b'{"type":"GARBLED","object":{}}\n'
                elif entry.change == "BOOKMARK" and given.get("allowWatchBookmarks") == "true":
                    found = {"kind": KINDS[plural], "metadata": {"resourceVersion": str(since)}}
                    yield json.dumps({"type": "BOOKMARK", "object": found}).encode() + b"\n"
                elif entry.plural == plural and namespace in {"", entry.object["metadata"]["namespace"]}:
                    found = {"type": entry.change, "object": _in(version, entry.object)}
                    line = json.dumps(found).encode() + b"\n"
                    yield line[:20]  # an event may come in pieces
                    yield line[20:]


def _in(version: str, found: Object) -> Object:
    return {**found, "apiVersion": f"{GROUP}/{version}"}


def _place(path: str) -> tuple[str, str, str]:
    parts = path.removeprefix(f"/apis/{GROUP}/").split("/")
    return parts[0], parts[-1], parts[2] if len(parts) == 4 else ""


def _body(failure: Failure) -> bytes:
    return _status(failure.status, "the test says so") if failure.body is None else failure.body


def _status(code: int, message: str) -> bytes:
    return json.dumps({"kind": "Status", "status": "Failure", "message": message, "code": code}).encode()


def _send(handler: BaseHTTPRequestHandler, status: int, body: bytes, retry_after: int | None = None) -> None:
    handler.send_response(status)
    handler.send_header("content-type", "application/json")
    handler.send_header("content-length", str(len(body)))
    if retry_after is not None:
        handler.send_header("retry-after", str(retry_after))
    handler.end_headers()
    handler.wfile.write(body)


def _stream(handler: BaseHTTPRequestHandler, pieces: Iterator[bytes]) -> None:
    handler.send_response(200)
    handler.send_header("content-type", "application/json")
    handler.send_header("transfer-encoding", "chunked")
    handler.end_headers()
    try:
        for piece in pieces:
            if piece:
                handler.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            handler.wfile.flush()
        handler.wfile.write(b"0\r\n\r\n")
    except OSError:  # whoever asked has gone
        handler.close_connection = True
