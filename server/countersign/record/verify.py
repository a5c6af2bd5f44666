"""Whether a log is what was written: line by line, across files and restarts (see `countersign.record.chain`).

What can be known: a line that is changed, missing between two others, moved, repeated or added, in any place but after
the last one. Of the end only a ``stop`` tells: a log that does not end with one may have been cut there, or its
process may still be running, or have been killed. With a key, nothing before the last signature can have been
computed anew; without one, whoever has the file can compute all of it.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from typing import Any, Final

from countersign.record.chain import FIRST, Event, Link, read_link, signed_octets
from countersign.record.signing import Verify

_LONGEST: Final = 1 << 20  # octets of a line; records have some 3,000 at most


class Kind(StrEnum):
    """What is wrong with a line."""

    CHANGED = "changed"
    MISSING = "missing"
    MOVED = "moved"
    CUT = "cut"
    FOREIGN = "foreign"
    UNSIGNED = "unsigned"
    UNENDED = "unended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong, and where: lines count from 1."""

    file: str
    line: int
    kind: Kind
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.kind}: {self.text}"


@dataclass(slots=True)
class _State:
    """The last good line of a chain. ``damaged`` is how many lines had been found damaged until then."""

    file: str
    line: int
    link: Link
    number: int
    damaged: int
    stopped: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Of a whole log. ``unsigned`` lines come after the last good signature; ``open`` names chains without an end."""

    records: int
    events: int
    lost: int
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    unsigned: int
    open: tuple[str, ...]


@dataclass(slots=True)
class Verification:
    """Takes the lines of a log in order, and says in the end what is wrong with them.

    ``verify`` checks signatures, None if there is no key. With ``partial`` a log may begin in the middle of a chain,
    with ``ended`` it must end with a ``stop``.
    """

    verify: Verify | None = None
    partial: bool = False
    ended: bool = False
    _findings: list[Finding] = field(default_factory=list)
    _notes: list[str] = field(default_factory=list)
    _chains: dict[str, _State] = field(default_factory=dict)
    _torn: tuple[int, str] | None = None  # the finding about the line before, and the hash of what is there
    _damaged: int = 0
    _number: int = 0
    _begun: int = 0  # where the latest chain begins
    _file: str = ""
    _records: int = 0
    _events: int = 0
    _lost: int = 0
    _unsigned: int = 0

    def read(self, file: str, lines: Iterable[bytes]) -> None:
        """The next file, line by line, each with its end."""
        self._file = file
        for number, line in enumerate(lines, 1):
            self._read(file, number, line)

    def _read(self, file: str, number: int, line: bytes) -> None:
        self._number += 1
        torn, self._torn = self._torn, None
        whole = line.endswith(b"\n")
        text = line.removesuffix(b"\n")
        link = read_link(text) if len(text) <= _LONGEST else None
        if not whole:
            self._damage(file, number, Kind.CUT, "the line has no end", text)
        elif link is None:
            kind, said = (Kind.FOREIGN, "no part of a chain") if _is_object(text) else (Kind.CHANGED, "no record")
            self._damage(file, number, kind, said, text)
        elif not link.intact:
            self._damage(file, number, Kind.CHANGED, "the line is not what was written", text)
        else:
            self._link(file, number, link, json.loads(text), torn)

    def _damage(self, file: str, number: int, kind: Kind, said: str, text: bytes) -> None:
        self._damaged += 1
        self._torn = (len(self._findings), sha256(text).hexdigest())
        self._find(file, number, kind, said)

    def _find(self, file: str, number: int, kind: Kind, said: str) -> None:
        self._findings.append(Finding(file=file, line=number, kind=kind, text=said))

    def _link(self, file: str, number: int, link: Link, record: dict[str, Any], torn: tuple[int, str] | None) -> None:
        event = record.get("event")
        if event == Event.START and torn is not None and record.get("torn") == torn[1]:
            found = self._findings.pop(torn[0])  # its process was killed while it wrote, and the next one says so
            self._damaged -= 1
            self._notes.append(f"{found.file}:{found.line}: half a line, from a process that was killed")
        before = self._chains.get(link.id)
        if before is None:
            self._begin(file, number, link, event)
        elif not self._follows(file, number, link, before):
            return
        if event == Event.START and before is not None and not before.stopped:
            self._notes.append(
                f"{before.file}:{before.line}: here a process ended without saying so, and another began"
            )
        self._count(file, number, link, record)
        self._chains[link.id] = _State(file, number, link, self._number, self._damaged, stopped=event == Event.STOP)

    def _begin(self, file: str, number: int, link: Link, event: object) -> None:
        self._begun = self._number
        if link.seq == 0:
            if link.prev != FIRST or event != Event.START:
                self._find(file, number, Kind.CHANGED, "a chain that does not begin with a start")
        elif self.partial:
            self._notes.append(f"{file}:{number}: {link.seq} lines of this chain come before")
        elif link.seq > self._damaged:
            self._find(file, number, Kind.MISSING, f"the chain begins {link.seq} lines before, and they are not here")

    def _follows(self, file: str, number: int, link: Link, before: _State) -> bool:
        """Whether a line takes the next place in its chain, or a later one where lines are missing."""
        place = f"{before.file}:{before.line}"
        if link.seq <= before.link.seq:
            self._find(file, number, Kind.MOVED, f"its place is before or at {place}: moved, or here twice")
            return False
        missing = link.seq - before.link.seq - 1
        damaged = self._damaged - before.damaged
        if missing > damaged:
            self._find(file, number, Kind.MISSING, f"{missing - damaged} lines after {place} are not here")
        elif not missing and link.prev != before.link.hash:
            self._find(file, number, Kind.CHANGED, f"it does not follow {place}: that one was computed anew")
        return True

    def _count(self, file: str, number: int, link: Link, record: dict[str, Any]) -> None:
        event = record.get("event")
        self._unsigned += 1
        if event is None:
            self._records += 1
            return
        self._events += 1
        if event == Event.LOST:
            self._lost += int(record.get("lost", 0))
        elif self.verify is not None:
            if link.signature and self.verify(link.signature, signed_octets(link.signed)):
                self._unsigned = 0
            else:
                self._find(file, number, Kind.UNSIGNED, f"a {event} that is not signed by the key")

    def end(self) -> Summary:
        """There are no more lines."""
        is_open = [state for state in self._chains.values() if not state.stopped]
        for state in is_open:
            if self.ended or state.number < self._begun:
                self._find(state.file, state.line, Kind.UNENDED, "the chain has no end: what came after is not known")
        if not self._number:
            self._find(self._file, 0, Kind.MISSING, "there is not one line")
        return Summary(
            records=self._records,
            events=self._events,
            lost=self._lost,
            findings=tuple(self._findings),
            notes=tuple(self._notes),
            unsigned=self._unsigned,
            open=tuple(f"{state.file}:{state.line}" for state in is_open),
        )


def _is_object(text: bytes) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
