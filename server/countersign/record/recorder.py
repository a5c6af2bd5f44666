"""The log of decisions of one process: what `observe` is told is written down, or counted."""

import logging
import random
import secrets
from importlib.metadata import version
from typing import Final, assert_never

from countersign.core.decision import Allow
from countersign.edge.check import UNRECORDED
from countersign.edge.metrics.state import Logged
from countersign.edge.observed import Answered, Observe, UnrecordedError
from countersign.record.file import FileSink, StdoutSink
from countersign.record.lines import Lines, continued
from countersign.record.queue import Queue
from countersign.record.settings import Collector, LogFile, Mode, RecordSettings, Stdout
from countersign.record.signing import read_signer
from countersign.record.sink import Sink
from countersign.record.writer import Writer

_log: Final = logging.getLogger(__name__)

_GRACE: Final = 3.0  # seconds at the end, within what a supervisor and Kubernetes wait


class Recorder:
    """Records from `start` to `stop`. `observe` is for any thread, and neither waits nor writes."""

    def __init__(self, settings: RecordSettings) -> None:
        self._settings = settings
        self._queue = Queue(settings.queue)
        self._blocks = settings.mode is Mode.BLOCK
        self._share = settings.sample_allows
        self._sink = _sink(settings)
        self._writer: Writer | None = None

    def start(self) -> None:
        """Open the log and begin. Raise OSError where that is not possible."""
        settings = self._settings
        key, sign = ("", None) if settings.key_file is None else read_signer(settings.key_file)
        tail = self._sink.open()
        chain, torn = continued(tail, sign) if settings.chain else (None, b"")
        lines = Lines(
            labels={"app": "countersign", "id": secrets.token_hex(8), "version": version("countersign")},
            mask=settings.mask,
            chain=chain,
            key=key,
            every=settings.checkpoint_every,
            interval=settings.checkpoint_interval,
        )
        self._writer = Writer(self._queue, lines, self._sink)
        self._writer.start(torn)

    def observe(self, answered: Answered) -> None:
        """Have an answer written down. Raise `UnrecordedError` where it must be and cannot."""
        if self._share < 1 and isinstance(answered.judged.decision, Allow) and random.random() >= self._share:  # noqa: S311
            return
        if not self._queue.put(answered) and self._blocks:
            raise UnrecordedError

    def stop(self) -> None:
        """Write what is left, and say what could not be written."""
        if self._writer is None:
            return
        lost = self._writer.stop(_GRACE)
        if lost:
            _log.error("the decision log ends, and %d lines of it are not written", lost)

    @property
    def logged(self) -> Logged:
        """How much so far."""
        return Logged(records=0 if self._writer is None else self._writer.written, lost=self._queue.refused)


def recording(settings: RecordSettings | None) -> Recorder | None:
    """The log of decisions, begun; None where none is asked for. Raise OSError."""
    if settings is None:
        return None
    recorder = Recorder(settings)
    recorder.start()
    return recorder


def observing(recorder: Recorder | None, count: Observe) -> Observe:
    """Have each answer recorded, if there is a log, and counted; one that may not be given as the denial it becomes."""
    if recorder is None:
        return count
    record = recorder.observe

    def observe(answered: Answered) -> None:
        try:
            record(answered)
        except UnrecordedError:
            count(answered._replace(judged=UNRECORDED.judged))
            raise
        count(answered)

    return observe


def logged(recorder: Recorder | None) -> Logged | None:
    """What the log has counted, if there is one."""
    return None if recorder is None else recorder.logged


def _sink(settings: RecordSettings) -> Sink:
    match settings.to:
        case Stdout():
            return StdoutSink(settings.stdout_lock)
        case LogFile(path=path):
            return FileSink(path, settings.sync)
        case Collector():
            from countersign.record.collector import CollectorSink  # noqa: PLC0415 (httpx: only where it is needed)

            return CollectorSink(settings)
        case _:
            assert_never(settings.to)
