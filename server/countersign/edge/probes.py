"""Health over HTTP: ``/healthz`` and ``/livez`` (the process is alive), ``/readyz`` (it can decide), and ``/metrics``.

With ``?verbose`` they say each check with its reason (see `countersign.edge.readiness`).
In a thread of its own, so that a slow prober costs checks nothing.
"""

from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Final
from urllib.parse import parse_qs

from countersign.edge.addresses import TcpAddress
from countersign.edge.http_listener import HttpListener
from countersign.edge.metrics.exposition import CONTENT_TYPE
from countersign.edge.readiness import Check, Checks, not_ready, verbose

_ALIVE: Final = frozenset({"/healthz", "/livez"})
_READY: Final = frozenset({"/readyz", "/ready", "/health"})
_METRICS: Final = "/metrics"
_TIMEOUT: Final = 5  # seconds for a prober to send its request

_CLIENTS: Final = 128  # at a time: enough that whoever is slow keeps no prober away

_PING: Final = (Check("ping"),)  # whoever answers is alive

# The text of `/metrics`.
Metrics = Callable[[], bytes]


class Probes(HttpListener):
    """A context manager: the listener is up inside it."""

    def __init__(self, address: TcpAddress, checks: Callable[[], Checks], metrics: Metrics) -> None:
        class Handler(BaseHTTPRequestHandler):
            timeout = _TIMEOUT
            server_version = "countersign"
            sys_version = ""

            def do_GET(self) -> None:  # (http.server's name)
                path, _, query = self.path.partition("?")
                if path in _ALIVE:
                    self._report(_PING, path, query)
                elif path in _READY:
                    self._report(checks(), path, query)
                elif path == _METRICS:
                    self._send(200, metrics(), CONTENT_TYPE)
                else:
                    self._answer(404, "try /livez, /readyz or /metrics")

            def _report(self, found: Checks, path: str, query: str) -> None:
                why = not_ready(found)
                told = "verbose" in parse_qs(query, keep_blank_values=True)
                self._answer(503 if why else 200, verbose(found, path[1:]) if told else why or "ok")

            def _answer(self, status: int, text: str) -> None:
                self._send(status, f"{text}\n".encode(), "text/plain; charset=utf-8")

            def _send(self, status: int, body: bytes, kind: str) -> None:
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (http.server's name)
                """Probes come every second: they are not news."""

        super().__init__(address, Handler, "probes", clients=_CLIENTS)
