"""The admin API over HTTP: read-only, for this machine, and for no page that a browser has open.

A page can have its own host name lead here (DNS rebinding), so a request must name this machine by an address or by
the name that is listened on; and what it sends must say that it is JSON, which a page may not without being asked.
"""

import ipaddress
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from http.server import BaseHTTPRequestHandler
from typing import Any, Final

from countersign.admin.answers import JSON, METHOD, Answers, Query, RefusedError, only, query_of, text_of
from countersign.admin.view import View
from countersign.edge.addresses import AddressError, TcpAddress, parse_address
from countersign.edge.http_listener import MAX_SECONDS, HttpListener
from countersign.settings import Settings

_log: Final = logging.getLogger(__name__)

CLIENTS: Final = 8  # at a time
_TIMEOUT: Final = 5  # seconds without an octet
_MAX_BODY: Final = 1024 * 1024

_NO_METHOD: Final = 501  # what http.server says in its place
_ALLOWED: Final = {"/explain": "GET, HEAD, POST"}


class Admin(HttpListener):
    """A context manager: the listener is up inside it."""

    def __init__(self, address: TcpAddress, view: View, *, seconds: float = MAX_SECONDS) -> None:
        class Handler(_Handler):
            answers = Answers(view)
            listens = address

        super().__init__(address, Handler, "the admin API", clients=CLIENTS, seconds=seconds)


def admin(settings: Settings, view: View) -> AbstractContextManager[object]:
    """The admin API as the settings want it: none, if they want none. Raise OSError where it cannot listen."""
    if settings.admin is None:
        return nullcontext()
    found = Admin(settings.admin, view)
    _log.info("the admin API is at http://%s", TcpAddress(settings.admin.host, found.port))
    return found


class _Handler(BaseHTTPRequestHandler):
    answers: Answers
    listens: TcpAddress
    timeout = _TIMEOUT
    server_version = "countersign"
    sys_version = ""

    def do_GET(self) -> None:  # (http.server's name)
        self._answer(self._get)

    do_HEAD = do_GET  # noqa: N815 (http.server's name)

    def do_POST(self) -> None:  # (likewise)
        self._answer(self._post)

    def _get(self, path: str, query: Query) -> tuple[str, str]:
        return self.answers.get(path, query)

    def _post(self, path: str, query: Query) -> tuple[str, str]:
        only(query)
        if self.headers.get_content_type() != JSON:
            raise RefusedError(415, f"wants content-type: {JSON}")
        length = self.headers.get_all("content-length", [])
        if len(length) != 1 or not length[0].isascii() or not length[0].isdigit():
            raise RefusedError(411, "wants a content-length")
        if len(length[0]) > len(str(_MAX_BODY)) or int(length[0]) > _MAX_BODY:
            raise RefusedError(413, f"more than {_MAX_BODY} bytes")
        body = self.rfile.read(int(length[0]))
        try:
            return self.answers.post(path, body.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise RefusedError(400, f"not UTF-8 at byte {error.start}") from error

    def _answer(self, find: Callable[[str, Query], tuple[str, str]]) -> None:
        try:
            self._refuse_strangers()
            path, _, query = self.path.partition("?")
            kind, text = find(path, query_of(query))
            status = 200
        except RefusedError as refused:
            status, kind, text = refused.status, JSON, text_of({"error": str(refused)})
        except OSError:
            raise  # the client's
        except Exception as error:  # noqa: BLE001 (whoever asks gets an answer, and the log no text of a request)
            _log.error("the admin API failed with %s", type(error).__name__)
            status, kind, text = 500, JSON, text_of({"error": "a fault of countersign; see its log"})
        self._send(status, kind, text)

    def _refuse_strangers(self) -> None:
        hosts = self.headers.get_all("host", [])
        if len(hosts) != 1 or not _is_ours(hosts[0], self.listens):
            raise RefusedError(421, f"the host is not this one; ask for http://{self.listens}")

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """For what `http.server` itself refuses; nothing of the request is repeated."""
        if code == _NO_METHOD:
            self._send(METHOD, JSON, text_of({"error": "only GET, HEAD, and POST for /explain"}))
        else:
            self._send(code, JSON, text_of({"error": "the request cannot be read"}))

    def _send(self, status: int, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        if status == METHOD:
            self.send_header("allow", _ALLOWED.get(self.path.partition("?")[0], "GET, HEAD"))
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.send_header("x-content-type-options", "nosniff")
        self.send_header("cache-control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401 (http.server's)
        """What is asked may be about users: it is not logged."""


def _is_ours(host: str, listens: TcpAddress) -> bool:
    """Whether a Host header names this machine: by a loopback name, or as it listens."""
    host = host.lower()
    try:
        address = parse_address(host if host.rpartition(":")[2].isdigit() and not host.endswith("]") else f"{host}:80")
    except AddressError:
        return False
    if not isinstance(address, TcpAddress):
        return False
    if address.is_loopback or address.host == listens.host.lower():
        return True
    return _is_any(listens.host) and _is_ip(address.host)  # an address is no name that could lead here


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_any(host: str) -> bool:
    return _is_ip(host) and ipaddress.ip_address(host).is_unspecified
