"""A collector of decision logs on a port of its own, that can go away, come back, and answer as it likes."""

import gzip
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from tests.cli.serving import free_port


class Collecting:
    """``status`` gives the answer to each batch; what is not 2xx is not kept. Start with `come`."""

    def __init__(self) -> None:
        self.port = free_port()
        self.batches: list[list[dict[str, Any]]] = []
        self.headers: list[dict[str, str]] = []
        self.status: Callable[[], int] = lambda: 200
        self.hang_up = False  # take the batch, and go without an answer
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/logs"

    @property
    def ids(self) -> list[str]:
        return [record["decision_id"] for batch in self.batches for record in batch if "decision_id" in record]

    def come(self) -> Self:
        """Listen."""
        collecting = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                status = collecting.status()
                collecting.headers.append({name.lower(): value for name, value in self.headers.items()})
                if 200 <= status < 300:
                    collecting.batches.append(json.loads(gzip.decompress(body)))
                if collecting.hang_up:
                    self.close_connection = True
                    return
                self.send_response(status)
                self.send_header("content-length", "0")
                if collecting._server is None:
                    self.send_header("connection", "close")
                    self.close_connection = True
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the overridden signature)
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False
            allow_reuse_address = True

        self._server = Server(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def go(self) -> None:
        """Listen no more."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()

    def __enter__(self) -> Self:
        return self.come()

    def __exit__(self, *_: object) -> None:
        self.go()
