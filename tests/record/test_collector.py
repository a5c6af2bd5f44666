"""Batches reach a collector at least once each, however often it or we go away in between."""

import stat
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from countersign.edge.keys.url import HttpUrl
from countersign.mesh.process import wait_until
from countersign.record import collector
from countersign.record.collector import CollectorSink
from countersign.record.recorder import Recorder
from countersign.record.settings import Collector, Mode, RecordSettings
from countersign.record.spool import Spool

from tests.cli.serving import Serve
from tests.cli.test_log import ask_many
from tests.edge.serving import READERS
from tests.record.answering import answered
from tests.record.collecting import Collecting


def settings(collecting: Collecting, spool: Path, **more: object) -> RecordSettings:
    return RecordSettings(to=Collector(HttpUrl.parse(collecting.url)), spool=spool, **more)  # type: ignore[arg-type]


def names(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


def arrives(collecting: Collecting, wanted: Callable[[list[str]], bool]) -> None:
    wait_until("arriving", lambda: wanted(collecting.ids) or None, within=20)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector, "_MAX_BACKOFF", 0.3)


def test_a_batch_is_a_gzipped_array_of_records_with_the_token_of_the_file(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    with Collecting() as collecting:
        recorder = Recorder(settings(collecting, tmp_path / "spool", token_file=token))
        recorder.start()
        recorder.observe(answered(number=1))
        arrives(collecting, lambda ids: len(ids) == 1)
        token.write_text("second\n")
        recorder.observe(answered(number=2))
        recorder.stop()

    assert [each["content-encoding"] for each in collecting.headers] == ["gzip"] * 2
    assert [each["content-type"] for each in collecting.headers] == ["application/json"] * 2
    assert [each["authorization"] for each in collecting.headers] == ["Bearer first", "Bearer second"]
    assert collecting.ids == [answered(number=number).id for number in (1, 2)]
    assert names(tmp_path / "spool") == ["lock"]


def test_what_waits_in_the_spool_is_sent_by_the_next_process(tmp_path: Path) -> None:
    collecting = Collecting()
    for start in (0, 1000):
        recorder = Recorder(settings(collecting, tmp_path / "spool"))
        recorder.start()
        for number in range(start, start + 1000):
            recorder.observe(answered(number=number))
        recorder.stop()
    assert not collecting.ids
    with collecting:
        recorder = Recorder(settings(collecting, tmp_path / "spool"))
        recorder.start()
        arrives(collecting, lambda ids: len(ids) >= 2000)
        recorder.stop()

    assert collecting.ids == [answered(number=number).id for number in range(2000)]
    assert names(tmp_path / "spool") == ["lock"]


def test_a_batch_whose_answer_was_lost_comes_again(tmp_path: Path) -> None:
    with Collecting() as collecting:
        collecting.hang_up = True
        recorder = Recorder(settings(collecting, tmp_path / "spool"))
        recorder.start()
        recorder.observe(answered())
        arrives(collecting, lambda ids: len(ids) >= 2)
        collecting.hang_up = False
        wait_until("having sent", lambda: names(tmp_path / "spool") == ["lock"] or None, within=10)
        recorder.stop()

    assert set(collecting.ids) == {answered().id}


@pytest.mark.parametrize("status", [302, 401, 404, 408, 429, 500, 503])
def test_a_batch_that_is_not_taken_now_is_sent_until_it_is(
    tmp_path: Path, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    answers = iter([status, status])
    with Collecting() as collecting:
        collecting.status = lambda: next(answers, 204)
        recorder = Recorder(settings(collecting, tmp_path / "spool"))
        recorder.start()
        recorder.observe(answered())
        arrives(collecting, lambda ids: len(ids) == 1)
        recorder.stop()

    assert len(collecting.headers) == 3
    assert caplog.text.count(f"it answers {status}") == 1


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_batch_that_will_never_be_taken_is_set_aside_and_the_next_one_sent(
    tmp_path: Path, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    answers = iter([status])
    with Collecting() as collecting:
        collecting.status = lambda: next(answers, 200)
        recorder = Recorder(settings(collecting, tmp_path / "spool"))
        recorder.start()
        recorder.observe(answered(number=1))
        wait_until("refused", lambda: list((tmp_path / "spool").glob("*.refused")) or None, within=10)
        recorder.observe(answered(number=2))
        arrives(collecting, lambda ids: len(ids) == 1)
        recorder.stop()

    assert collecting.ids == [answered(number=2).id]
    assert f"refuses a batch with {status}" in caplog.text


def test_a_batch_that_somebody_has_deleted_does_not_hold_up_the_others(tmp_path: Path) -> None:
    collecting, spool = Collecting(), tmp_path / "spool"
    recorder = Recorder(settings(collecting, spool))
    recorder.start()
    recorder.observe(answered(number=1))
    wait_until("spooled", lambda: list(spool.glob("*.gz")) or None, within=10)[0].unlink()
    recorder.observe(answered(number=2))
    with collecting:
        arrives(collecting, lambda ids: ids == [answered(number=2).id])
        recorder.stop()


def test_a_full_spool_is_a_full_queue_and_nothing_that_was_taken_is_lost(tmp_path: Path) -> None:
    collecting = Collecting()
    recorder = Recorder(settings(collecting, tmp_path / "spool", spool_size=20_000, queue=500, mode=Mode.DROP))
    recorder.start()
    taken: list[str] = []
    while recorder.logged.lost < 500:
        before = recorder.logged.lost
        taken.append(f"0123456789abcdef-{len(taken):011x}")
        recorder.observe(answered(number=len(taken) - 1))
        if recorder.logged.lost > before:
            taken[-1] = ""
    assert sum(path.stat().st_size for path in (tmp_path / "spool").iterdir()) <= 20_000
    with collecting:
        arrives(collecting, lambda ids: len(ids) >= len([each for each in taken if each]))
        recorder.stop()

    assert Counter(collecting.ids) == Counter(each for each in taken if each)


def test_a_spool_is_of_one_process_and_of_its_owner(tmp_path: Path) -> None:
    one, two = Spool(tmp_path / "spool", 1000), Spool(tmp_path / "spool", 1000)
    one.open()
    with pytest.raises(OSError, match="another process spools here"):
        two.open()
    one.close()
    two.open()
    two.close()
    assert stat.S_IMODE((tmp_path / "spool").stat().st_mode) == 0o700


def test_half_a_batch_of_a_process_that_was_killed_is_not_sent(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1000)
    spool.open()
    spool.add(b"whole")
    (tmp_path / "0000000000000001.json.gz.part").write_bytes(b"hal")
    spool.close()
    again = Spool(tmp_path, 1000)
    again.open()
    assert (again.first(), len(again)) == (("0000000000000000.json.gz", b"whole"), 1)
    assert not list(tmp_path.glob("*.part"))
    again.add(b"next")
    again.remove("0000000000000000.json.gz")
    assert again.first() == ("0000000000000001.json.gz", b"next")
    with pytest.raises(OSError, match="the spool is full"):
        again.add(b"x" * 1000)
    again.close()


def test_a_token_or_a_ca_that_cannot_be_read_is_an_error_at_the_start(tmp_path: Path) -> None:
    collecting = Collecting()
    with pytest.raises(FileNotFoundError):
        CollectorSink(settings(collecting, tmp_path / "spool", token_file=tmp_path / "gone")).open()
    secure = RecordSettings(
        to=Collector(HttpUrl.parse("https://c.example/")), spool=tmp_path / "spool", ca_file=tmp_path / "gone"
    )
    with pytest.raises(OSError, match="CA file"):
        CollectorSink(secure).open()


def test_nothing_is_lost_while_the_collector_is_away_and_we_are_restarted(tmp_path: Path) -> None:
    """``pytest -rP`` shows the figures."""
    policies = tmp_path / "policies"
    policies.mkdir()
    (policies / "p.yaml").write_text(READERS)
    collecting = Collecting().come()
    flags = ("--namespace", "apps", "--decision-log", collecting.url, "--audit-spool", str(tmp_path / "spool"))
    said: list[str] = []
    with Serve(tmp_path, policies, *flags) as serve:
        said += ask_many(serve.address, 2000)
        arrives(collecting, bool)
        collecting.hang_up = True  # some batches are taken, and their answers lost
        said += ask_many(serve.address, 2000)
        collecting.go()
        said += ask_many(serve.address, 2000)
        assert serve.child.stop() == 0
    while_away = len(set(collecting.ids))
    with Serve(tmp_path, policies, *flags) as serve:
        said += ask_many(serve.address, 2000)
        collecting.hang_up = False
        collecting.come()
        wait_until("arriving", lambda: set(said) <= set(collecting.ids) or None, within=60)
        said += ask_many(serve.address, 2000)
        assert serve.child.stop() == 0
    collecting.go()
    arrived = Counter(collecting.ids)

    assert len(set(said)) == len(said) == 10_000
    lost = set(said) - set(arrived)
    print(  # noqa: T201 (for `pytest -rP`)
        f"{len(said)} decisions, {len(arrived)} recorded ({while_away} before the restart), {len(lost)} lost, "
        f"{arrived.total() - len(arrived)} came twice"
    )
    assert not lost
    assert set(arrived) == set(said)
