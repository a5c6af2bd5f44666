"""Whoever checks is never held up by the log; and what it cannot take is counted, or not let through."""

import itertools
import json
import logging
import os
import re
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from countersign.edge.check import Checker
from countersign.edge.metrics.state import Logged
from countersign.edge.observed import Answered, UnrecordedError
from countersign.mesh.process import wait_until
from countersign.record.lines import Lines
from countersign.record.queue import Queue
from countersign.record.recorder import Recorder, observing
from countersign.record.settings import LogFile, Mode, RecordSettings
from countersign.record.writer import Writer
from countersign.wire import auth_pb2 as pb

from tests.edge.serving import TIMEOUT, reason, request, snapshot
from tests.record.answering import ALLOW, DENY, answered


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


class Slow:
    """A sink that takes nothing until it is let."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.let = threading.Event()
        self.failures = 0
        self._taken: list[bytes] = []

    def open(self) -> bytes:
        return b""

    def put(self, lines: Sequence[bytes]) -> None:
        self._taken += lines

    def flush(self, *, last: bool) -> None:  # noqa: ARG002 (a sink's)
        if not self._taken:
            return
        if not self.let.is_set():
            self.failures += 1
            raise OSError("the disk is full")
        self.lines += self._taken
        self._taken = []

    def close(self) -> int:
        return len(self._taken)


def test_each_answer_is_written_once_and_in_order(tmp_path: Path) -> None:
    recorder = Recorder(RecordSettings(to=LogFile(tmp_path / "d.jsonl")))
    recorder.start()
    for number in range(2000):
        recorder.observe(answered(number=number))
    recorder.stop()

    assert [each["decision_id"][-11:] for each in read(tmp_path / "d.jsonl")] == [f"{n:011x}" for n in range(2000)]
    assert recorder.logged == Logged(records=2000, lost=0)


def test_of_allows_a_share_is_written_and_of_denials_all(tmp_path: Path) -> None:
    for share, least, most in ((0.0, 0, 0), (0.1, 120, 290), (1.0, 2000, 2000)):
        path = tmp_path / f"{share}.jsonl"
        recorder = Recorder(RecordSettings(to=LogFile(path), sample_allows=share))
        recorder.start()
        for number in range(2000):
            recorder.observe(answered(number=number, decision=ALLOW))
            recorder.observe(answered(number=number, decision=DENY))
        recorder.stop()
        allowed = [each["result"]["allowed"] for each in read(path)]
        assert least <= allowed.count(True) <= most
        assert allowed.count(False) == 2000


def test_what_a_full_queue_refuses_is_counted_logged_and_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    queue, sink = Queue(places=10), Slow()
    writer = Writer(queue, Lines(labels={}), sink)
    writer.start(b"")
    put = sum(queue.put(answered(number=number)) for number in range(2000))
    assert queue.refused == 2000 - put
    sink.let.set()
    assert writer.stop(5.0) == 0
    lines = [json.loads(line) for line in sink.lines]

    assert len([each for each in lines if "decision_id" in each]) == put == writer.written
    assert sum(each["lost"] for each in lines if each.get("event") == "lost") == 2000 - put
    assert sum(map(int, re.findall(r"(\d+) decisions are not recorded", caplog.text))) == 2000 - put


def test_a_sink_that_fails_is_tried_again_with_the_same_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    queue, sink = Queue(places=1000), Slow()
    writer = Writer(queue, Lines(labels={}), sink)
    writer.start(b"")
    for number in range(300):
        queue.put(answered(number=number))
    wait_until("failing twice", lambda: sink.failures > 1 or None, within=5)
    sink.let.set()
    assert writer.stop(5.0) == 0

    assert [json.loads(line)["decision_id"][-11:] for line in sink.lines] == [f"{n:011x}" for n in range(300)]
    assert caplog.text.count("cannot be written") == 1
    assert caplog.text.count("can be written again") == 1


def test_what_is_left_at_the_end_is_said() -> None:
    queue, sink = Queue(places=1000), Slow()
    writer = Writer(queue, Lines(labels={}), sink)
    writer.start(b"")
    for number in range(300):
        queue.put(answered(number=number))
    assert writer.stop(0.2) == 300


def test_a_sink_that_hangs_holds_up_neither_checks_nor_the_end(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)  # and never reads
    recorder = Recorder(RecordSettings(to=LogFile(fifo), queue=100))
    # A FIFO cannot be read back, as `open` wants: a file first, and then the FIFO in its place.
    fifo.rename(tmp_path / "kept")
    recorder.start()
    fifo.unlink()
    (tmp_path / "kept").rename(fifo)
    longest = 0.0
    begun = time.monotonic()
    while recorder.logged.lost < 1000:
        before = time.perf_counter()
        recorder.observe(answered())
        longest = max(longest, time.perf_counter() - before)
        assert time.monotonic() - begun < 20
    assert longest < 0.1
    begun = time.monotonic()
    recorder.stop()
    assert time.monotonic() - begun < 5
    os.close(reader)
    # What hung has heard of that, and ends: else it would speak in the log of a later test.
    threads = [thread for thread in threading.enumerate() if thread.name == "decision log"]
    for thread in threads:
        thread.join(TIMEOUT)
    assert not any(thread.is_alive() for thread in threads)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [(Mode.DROP, ("allow-rule-matched", 0, 0)), (Mode.BLOCK, ("decision-unrecorded", 7, 503))],
)
def test_no_decision_is_given_without_its_record_if_that_is_asked_for(
    tmp_path: Path, mode: Mode, expected: tuple[str, int, int]
) -> None:
    path, current, faults, counted = tmp_path / "d.jsonl", snapshot(), list[Exception](), list[Answered]()
    recorder = Recorder(RecordSettings(to=LogFile(path), mode=mode, queue=1))
    checker = Checker(
        lambda: current, lambda _: None, faults.append, observing(recorder, counted.append), number_allows=True
    )

    def ask() -> tuple[str, int, int]:
        answer = checker.answer(request().SerializeToString(), None)
        assert isinstance(answer, bytes)
        response = pb.CheckResponse.FromString(answer)
        return reason(response), response.status.code, response.denied_response.status.code

    assert ask() == ("allow-rule-matched", 0, 0)  # nobody takes it from the queue yet
    assert ask() == expected
    recorder.start()
    wait_until("room", lambda: recorder.logged.records or None, within=5)
    assert ask() == ("allow-rule-matched", 0, 0)
    recorder.stop()
    lines = read(path)

    assert len([each for each in lines if "decision_id" in each]) == 2
    assert [each["lost"] for each in lines if "event" in each] == [1]
    assert not faults
    assert [each.judged.decision.reason for each in counted] == [
        "allow-rule-matched",
        expected[0],
        "allow-rule-matched",
    ]


def test_whoever_blocks_is_told_by_an_exception_of_its_own() -> None:
    recorder = Recorder(RecordSettings(to=LogFile(Path("unused")), mode=Mode.BLOCK, queue=1))
    recorder.observe(answered())
    with pytest.raises(UnrecordedError):
        recorder.observe(answered())


def test_the_queue_is_bounded_in_octets_and_has_room_again_when_it_is_empty() -> None:
    queue = Queue(places=1000, octets=10_000)
    large = answered(payload=b"x" * 4000)
    for _ in range(3):
        assert [queue.put(large) for _ in range(3)] == [True, True, False]
        assert [queue.take() is not None for _ in range(3)] == [True, True, False]
        queue._put_in += 9000  # as after two threads that met, of which one was counted twice
        assert queue.take() is None
    assert queue.refused == 3


def test_many_threads_lose_nothing_that_was_taken() -> None:
    queue = Queue(places=100_000)
    numbers = itertools.count()

    def put() -> None:
        for _ in range(2000):
            queue.put(answered(number=next(numbers)))

    threads = [threading.Thread(target=put) for _ in range(8)]
    for thread in threads:
        thread.start()
    got = set()
    while any(thread.is_alive() for thread in threads) or len(queue):
        found = queue.take()
        if found is not None:
            got.add(found.id)
    assert len(got) == 16_000


def test_a_record_that_cannot_be_made_whole_is_made_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("Bearer secret")

    monkeypatch.setattr("countersign.record.lines.entry", fail)
    recorder = Recorder(RecordSettings(to=LogFile(tmp_path / "d.jsonl")))
    recorder.start()
    recorder.observe(answered(decision=DENY))
    recorder.stop()
    (line,) = read(tmp_path / "d.jsonl")

    assert (line["result"], line["incomplete"]) == ({"reason": "no-allow-rule-matched"}, True)
    assert "RuntimeError" in caplog.text
    assert "secret" not in caplog.text
