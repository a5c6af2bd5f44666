"""As much of a Kubernetes API server as istiod wants to start: lists of a few objects, watches without events."""

import json
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import parse_qs

Object = dict[str, Any]
_VERSION: Final = {"major": "1", "minor": "37", "gitVersion": "v1.37.0"}
_METADATA_ONLY: Final = {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1"}
_LIST_IT: Final = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "BadRequest", "code": 400}


class QuietApiServer:
    """A context manager: it serves inside it. ``objects``: by the path of their list."""

    def __init__(self, objects: Mapping[str, list[Object]]) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(objects, ended := threading.Event()))
        self._ended = ended
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()  # of the watches
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler(objects: Mapping[str, list[Object]], ended: threading.Event) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path, _, words = self.path.partition("?")
            query = parse_qs(words)
            if path == "/version":
                self._say(200, _VERSION)
            elif "sendInitialEvents" in query:
                self._say(400, _LIST_IT)
            elif "watch" in query:
                self.send_response(200)
                self.send_header("Transfer-Encoding", "chunked")
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                ended.wait()
                self.close_connection = True
            else:
                kind = _METADATA_ONLY if "as=PartialObjectMetadataList" in self.headers.get("Accept", "") else {}
                found = objects.get(path, [])
                self._say(200, {**kind, "metadata": {"resourceVersion": "1"}, "items": found})

        def log_message(self, *_: object) -> None:
            """Nothing."""

        def _say(self, status: int, body: Object) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    return Handler
