"""Batches to a collector: ``POST`` of a gzipped JSON array of records, as OPA sends them, each at least once.

What is collected for a second goes to the spool, and from there to the collector, in order. A batch leaves the spool
when the collector has answered 2xx, so one that was taken and not answered is sent again: records have unique IDs.
"""

import gzip
import logging
import random
import ssl
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import httpx

from countersign.edge.keys.fetch import FetchError, trust
from countersign.edge.keys.url import HttpUrl
from countersign.record.settings import Collector, RecordSettings
from countersign.record.spool import Spool

_log: Final = logging.getLogger(__name__)

_DUE: Final = 1.0  # seconds that a record waits for others
_LINES: Final = 500  # of a batch, or somewhat more
_OCTETS: Final = 512 * 1024
_TIMEOUT: Final = 10.0  # seconds for each step of a request
_FIRST_BACKOFF: Final = 0.25
_MAX_BACKOFF: Final = 30.0
_LAST: Final = 2.0  # seconds at the end to send what is there; the rest waits for the next start
_UNFIT: Final = frozenset({400, 413, 415, 422})  # this batch will not be taken, whenever it comes
_BODY: Final = 1 << 16  # octets of an answer that are read, so that its connection can be used again


class CollectorSink:
    """Takes lines, spools them, and has a thread that sends."""

    def __init__(self, settings: RecordSettings) -> None:
        if not isinstance(settings.to, Collector) or settings.spool is None:
            raise TypeError("a collector has a URL and a spool")
        self._spool = Spool(settings.spool, settings.spool_size)
        self._sender = Sender(settings.to.url, self._spool, settings.ca_file, settings.token_file)
        self._lines: list[bytes] = []
        self._size = 0
        self._first_at = 0.0

    def open(self) -> bytes:
        """Open the spool and begin to send what is there. Raise OSError."""
        self._sender.prepare()
        self._spool.open()
        self._sender.start()
        return b""

    def put(self, lines: Sequence[bytes]) -> None:
        """Take lines."""
        if lines and not self._lines:
            self._first_at = time.monotonic()
        self._lines += lines
        self._size += sum(map(len, lines))

    def flush(self, *, last: bool) -> None:
        """Spool what has waited long enough, or is enough."""
        due = last or len(self._lines) >= _LINES or self._size >= _OCTETS or time.monotonic() - self._first_at >= _DUE
        if not self._lines or not due:
            return
        self._spool.add(gzip.compress(b"[%s]" % b",".join(self._lines), compresslevel=1, mtime=0))
        self._lines, self._size = [], 0
        self._sender.wake()

    def close(self) -> int:
        """Give the sender a moment, and leave the rest in the spool."""
        waits = self._sender.stop()
        if waits:
            _log.info("the decision log ends: %d batches wait in the spool for the next start", waits)
        self._spool.close()
        return len(self._lines)


class Sender:
    """The thread that sends what is in a spool."""

    def __init__(self, url: HttpUrl, spool: Spool, ca_file: Path | None, token_file: Path | None) -> None:
        self._url = url
        self._spool = spool
        self._ca_file = ca_file
        self._token_file = token_file
        self._awake = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="decision log to collector", daemon=True)
        self._said = ""
        self._trust: ssl.SSLContext | None = None

    def prepare(self) -> None:
        """Read what is needed to send. Raise OSError."""
        if self._url.scheme == "https":
            try:
                self._trust = trust(self._ca_file)
            except FetchError as error:
                raise OSError(str(error)) from error
        self._headers()

    def _headers(self) -> dict[str, str]:
        """The token is read each time: it may be a new one."""
        headers = {"content-type": "application/json", "content-encoding": "gzip", "user-agent": "countersign"}
        if self._token_file is not None:
            headers["authorization"] = f"Bearer {self._token_file.read_text(encoding='ascii').strip()}"
        return headers

    def start(self) -> None:
        """Begin, with what is there from before."""
        self._awake.set()
        self._thread.start()

    def wake(self) -> None:
        """There is something to send."""
        self._awake.set()

    def stop(self) -> int:
        """Send for a moment more. Give how many batches are left."""
        self._stop.set()
        self._awake.set()
        self._thread.join(_LAST)
        return len(self._spool)

    def _run(self) -> None:
        with httpx.HTTPTransport(verify=self._trust or False, trust_env=False) as transport:
            while True:
                self._awake.wait()
                self._awake.clear()
                self._send_all(transport)
                if self._stop.is_set():
                    return

    def _send_all(self, transport: httpx.HTTPTransport) -> None:
        """Until the spool is empty. At the end, the first failure is the last."""
        backoff = _FIRST_BACKOFF
        while len(self._spool):
            wrong = self._send_first(transport)
            if not wrong:
                backoff = _FIRST_BACKOFF
                continue
            if self._stop.wait(backoff * random.uniform(0.5, 1)):  # noqa: S311 (so that many do not come at once)
                return
            backoff = min(2 * backoff, _MAX_BACKOFF)

    def _send_first(self, transport: httpx.HTTPTransport) -> str:
        """Send the oldest batch. What is wrong with that; empty if it is done with."""
        try:
            first = self._spool.first()
            return "" if first is None else self._send(transport, *first)
        except OSError as error:
            return self._wrong(f"the spool cannot be used ({type(error).__name__})")

    def _send(self, transport: httpx.HTTPTransport, name: str, batch: bytes) -> str:
        try:
            status = self._post(transport, batch)
        except (httpx.TransportError, OSError, ValueError) as error:
            return self._wrong(f"it cannot be reached ({type(error).__name__})")
        if httpx.codes.is_success(status):
            self._spool.remove(name)
            if self._said:
                _log.info("the collector of the decision log takes records again")
            self._said = ""
            return ""
        if status in _UNFIT:
            self._spool.set_aside(name)
            _log.error("the collector refuses a batch with %d: it stays in the spool as *.refused", status)
            return ""
        return self._wrong(f"it answers {status}")

    def _post(self, transport: httpx.HTTPTransport, batch: bytes) -> int:
        timeout = httpx.Timeout(_TIMEOUT).as_dict()
        request = httpx.Request(
            "POST", self._url.text, headers=self._headers(), content=batch, extensions={"timeout": timeout}
        )
        response = transport.handle_request(request)
        try:
            size = 0
            for part in response.iter_raw():
                size += len(part)
                if size > _BODY:
                    break
        finally:
            response.close()
        return response.status_code

    def _wrong(self, what: str) -> str:
        if what != self._said:
            _log.warning("the collector of the decision log: %s; records wait in the spool", what)
        self._said = what
        return what
