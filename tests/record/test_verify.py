"""Whatever is done to a log afterwards is found, and its place."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import pytest
from countersign.record.chain import Chain, read_link
from countersign.record.lines import Lines, continued
from countersign.record.verify import Kind, Summary, Verification
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.record.answering import answered

KEY: Final = Ed25519PrivateKey.generate()
OTHER: Final = Ed25519PrivateKey.generate()
NOW: Final = 1_800_000_000.0


def verifies(signature: str, octets: bytes) -> bool:
    try:
        KEY.public_key().verify(bytes.fromhex(signature), octets)
    except InvalidSignature:
        return False
    return True


@dataclass
class Log:
    """Writes what a process writes. Each file is a list of lines."""

    key: Ed25519PrivateKey | None = KEY
    every: int = 3

    def __post_init__(self) -> None:
        self.files: list[list[bytes]] = [[]]
        self._number = itertools.count()

    def begin(self) -> "Log":
        tail = b"".join(self.files[-1])
        sign = None if self.key is None else self.key.sign
        chain, torn = continued(tail, sign)
        if tail and not tail.endswith(b"\n"):
            self.files[-1][-1] += b"\n"
        self._lines = Lines(labels={}, chain=chain, key="" if self.key is None else "k", every=self.every, interval=1e9)
        self._put(self._lines.start(NOW, torn))
        return self

    def write(self, count: int = 1) -> "Log":
        for _ in range(count):
            self._put([self._lines.record(answered(number=next(self._number)), None)])
            self._put(self._lines.checkpoint(NOW))
        return self

    def rotate(self) -> "Log":
        self.files.append([])
        return self

    def end(self) -> "Log":
        self._put(self._lines.stop(NOW))
        return self

    def _put(self, lines: Iterable[bytes]) -> None:
        self.files[-1] += [line + b"\n" for line in lines]

    @property
    def lines(self) -> list[bytes]:
        return list(itertools.chain.from_iterable(self.files))


def verify(
    files: Sequence[Sequence[bytes]], *, ended: bool = True, partial: bool = False, keyed: bool = True
) -> Summary:
    verification = Verification(verify=verifies if keyed else None, ended=ended, partial=partial)
    for number, lines in enumerate(files):
        verification.read(f"log.{number}", lines)
    return verification.end()


def found(summary: Summary) -> list[tuple[str, int, Kind]]:
    return [(each.file, each.line, each.kind) for each in summary.findings]


def sample() -> Log:
    """Two runs over three files: 12 records."""
    log = Log().begin().write(4).rotate().write(2).end()
    return log.begin().write(2).rotate().write(4).end()


SAMPLE: Final = sample().files


def test_a_log_across_files_and_restarts_is_whole() -> None:
    summary = verify(SAMPLE)

    assert (summary.records, summary.events, summary.lost, summary.unsigned) == (12, 8, 0, 0)
    assert (summary.findings, summary.notes, summary.open) == ((), (), ())


def test_without_a_key_it_is_whole_too() -> None:
    assert not verify(Log(key=None).begin().write(5).end().files, keyed=False).findings


def _places() -> list[tuple[int, int]]:
    return [(number, line) for number, lines in enumerate(SAMPLE) for line in range(len(lines))]


def changed(change: Callable[[list[bytes], int], None], place: tuple[int, int]) -> Summary:
    files = [list(lines) for lines in SAMPLE]
    change(files[place[0]], place[1])
    return verify(files)


@pytest.mark.parametrize("place", _places())
def test_a_line_that_is_gone_is_found_where_it_was(place: tuple[int, int]) -> None:
    summary = changed(lambda lines, at: lines.pop(at), place)  # type: ignore[arg-type]
    (finding,) = summary.findings

    last = place == _places()[-1]
    assert finding.kind is (Kind.UNENDED if last else Kind.MISSING)
    number, line = place
    if last:
        assert (finding.file, finding.line) == (f"log.{number}", line)
    elif line < len(SAMPLE[number]) - 1:
        assert (finding.file, finding.line) == (f"log.{number}", line + 1)
    else:
        assert (finding.file, finding.line) == (f"log.{number + 1}", 1)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(_places()), st.data())
def test_any_octet_that_is_changed_is_found_on_its_line(place: tuple[int, int], data: st.DataObject) -> None:
    line = SAMPLE[place[0]][place[1]]
    at = data.draw(st.integers(0, len(line) - 2))
    octet = data.draw(st.integers(0, 255).filter(lambda value: value not in (line[at], 10)))

    def change(lines: list[bytes], number: int) -> None:
        lines[number] = line[:at] + bytes([octet]) + line[at + 1 :]

    summary = changed(change, place)
    assert (f"log.{place[0]}", place[1] + 1) in [(each.file, each.line) for each in summary.findings]


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(b"".join(sample().lines)) - 1))
def test_an_ended_log_that_is_cut_anywhere_is_found(size: int) -> None:
    octets = b"".join(itertools.chain.from_iterable(SAMPLE))[:size]
    assert verify([octets.splitlines(keepends=True)]).findings


@settings(max_examples=200, deadline=None)
@given(st.tuples(st.sampled_from(_places()), st.sampled_from(_places())).filter(lambda pair: pair[0] != pair[1]))
def test_two_lines_that_changed_places_are_found(pair: tuple[tuple[int, int], tuple[int, int]]) -> None:
    (a, i), (b, j) = pair
    files = [list(lines) for lines in SAMPLE]
    files[a][i], files[b][j] = files[b][j], files[a][i]
    kinds = {each.kind for each in verify(files).findings}
    assert kinds & {Kind.MOVED, Kind.MISSING}


@pytest.mark.parametrize("place", _places())
def test_a_line_that_is_here_twice_is_found(place: tuple[int, int]) -> None:
    (finding,) = changed(lambda lines, at: lines.insert(at, lines[at]), place).findings
    assert (finding.file, finding.line, finding.kind) == (f"log.{place[0]}", place[1] + 2, Kind.MOVED)


@pytest.mark.parametrize(
    ("line", "kind"),
    [(b'{"decision_id":"x"}\n', Kind.FOREIGN), (b"\n", Kind.CHANGED), (b"[1]\n", Kind.CHANGED), (b"{\n", Kind.CHANGED)],
)
def test_a_line_that_was_added_is_found(line: bytes, kind: Kind) -> None:
    for place in _places():
        (finding,) = changed(lambda lines, at: lines.insert(at, line), place).findings
        assert (finding.file, finding.line, finding.kind) == (f"log.{place[0]}", place[1] + 1, kind)


def test_a_file_that_is_missing_between_two_is_found() -> None:
    assert found(verify([SAMPLE[0], SAMPLE[2]])) == [("log.1", 1, Kind.MISSING)]


def test_older_files_may_be_gone_if_that_is_said() -> None:
    assert found(verify(SAMPLE[1:])) == [("log.0", 1, Kind.MISSING)]
    summary = verify(SAMPLE[1:], partial=True)
    assert (summary.findings, len(summary.notes)) == ((), 1)


def test_files_in_another_order_are_found() -> None:
    assert verify([SAMPLE[1], SAMPLE[0], SAMPLE[2]]).findings


def test_what_was_computed_anew_without_the_key_is_found() -> None:
    forged = Log(key=OTHER).begin().write(4).end()
    assert not verify(forged.files, keyed=False).findings
    assert {each.kind for each in verify(forged.files).findings} == {Kind.UNSIGNED}
    unsigned = Log(key=None).begin().write(4).end()
    assert [each.kind for each in verify(unsigned.files).findings] == [Kind.UNSIGNED] * 2


def test_a_record_that_was_computed_anew_breaks_with_the_next_one() -> None:
    log = Log(every=100).begin().write(4)
    before = read_link(log.files[0][1].rstrip())
    forged = Chain(None, before).seal({"decision_id": "forged"}) + b"\n"
    log.files[0][2] = forged
    assert found(verify(log.files, ended=False)) == [("log.0", 4, Kind.CHANGED)]


def test_only_with_an_end_is_it_known_that_nothing_was_cut_off() -> None:
    log = Log(every=3).begin().write(5)
    whole = verify(log.files, ended=False)
    assert (whole.findings, whole.open, whole.unsigned) == ((), ("log.0:7",), 2)
    assert found(verify(log.files)) == [("log.0", 7, Kind.UNENDED)]
    assert not verify(log.end().files).findings


def test_a_chain_without_an_end_before_another_is_found_without_asking() -> None:
    log = Log().begin().write(2).rotate().begin().write(1).end()
    assert found(verify(log.files, ended=False)) == [("log.0", 3, Kind.UNENDED)]


def test_a_process_that_was_killed_is_continued_and_noted() -> None:
    log = Log().begin().write(2).begin().write(1).end()
    summary = verify(log.files)
    assert (summary.findings, len(summary.notes), summary.records) == ((), 1, 3)


@pytest.mark.parametrize("again", [False, True])
def test_half_a_line_of_a_process_that_was_killed_is_no_finding_if_the_next_one_vouches_for_it(again: bool) -> None:
    log = Log().begin().write(2)
    log.files[0][-1:] = [log.files[0][-1], b'{"timestamp":"2027' + (b"\n" if again else b"")]
    log.begin().write(1).end()
    summary = verify(log.files)
    assert (summary.findings, summary.records) == ((), 3)
    assert "half a line" in summary.notes[0]
    log.files[0][3] = b'{"timestamp":"2028\n'
    assert found(verify(log.files)) == [("log.0", 4, Kind.CHANGED)]


def test_several_processes_may_write_to_one_place() -> None:
    one, two = Log().begin().write(6).end(), Log().begin().write(6).end()
    mixed = [line for pair in zip(one.lines, two.lines, strict=True) for line in pair]
    assert not verify([mixed]).findings
    del mixed[4]
    assert found(verify([mixed])) == [("log.0", 6, Kind.MISSING)]


def test_an_empty_log_is_a_finding() -> None:
    assert found(verify([[]], ended=False)) == [("log.0", 0, Kind.MISSING)]


def test_what_was_lost_is_counted() -> None:
    log = Log().begin()
    log._put([log._lines.lost(5, NOW)])
    assert verify(log.end().files).lost == 5
