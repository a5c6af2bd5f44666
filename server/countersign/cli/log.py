"""`countersign log verify`: whether a log of decisions is what was written, and if not, which line is not."""

import argparse
import gzip
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final, cast

from countersign.explanation.conceal import printable
from countersign.record.chain import read_link
from countersign.record.signing import KeyFileError, read_verifier
from countersign.record.verify import Summary, Verification

_FINDING: Final = 1
_USAGE: Final = 2
_SHOWN: Final = 100  # findings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to look at, and what it is held against."""
    actions = parser.add_subparsers(title="actions", metavar="ACTION", dest="action", required=True)
    summary = "find what was changed, taken out, moved or cut off in a chained log (serve --audit-chain)"
    verify = actions.add_parser("verify", help=summary, description=summary)
    verify.epilog = "Exit code: 0 nothing found, 1 something was, 2 wrong usage, 3 I/O. See docs/decision-log.md."
    add = verify.add_argument
    add("files", metavar="FILE", nargs="+", help="a log with its rotated files, in any order; .gz is unpacked")
    add("--key", metavar="FILE", type=Path, action="append", default=[], help="public key (PEM); repeatable")
    add("--partial", action="store_true", help="the log may begin in the middle: older files are gone")
    add("--ended", action="store_true", help="the process has ended, so the log must have an end")
    add("-o", "--output", choices=("text", "json"), default="text", help="the form of the answer")


def run(arguments: argparse.Namespace) -> int:
    """Verify; give the exit code. Raise OSError if a file cannot be read."""
    try:
        verify = read_verifier(arguments.key) if arguments.key else None
    except KeyFileError as error:
        print(f"countersign log verify: {error}", file=sys.stderr)
        return _USAGE
    verification = Verification(verify=verify, partial=arguments.partial, ended=arguments.ended)
    try:
        for file in _in_order(arguments.files):
            with _opened(file) as lines:
                verification.read(file, lines)
    except (EOFError, gzip.BadGzipFile) as error:
        print(f"countersign log verify: {error}", file=sys.stderr)
        return _FINDING
    summary = verification.end()
    _print(summary, signed=verify is not None, as_json=arguments.output == "json")
    return _FINDING if summary.findings else 0


def _in_order(files: Sequence[str]) -> list[str]:
    """Oldest first, by what their first lines say; a file that does not say it stays where it was named."""
    first = [_first(file) for file in files]
    return [file for _, _, file in sorted(zip(first, range(len(files)), files, strict=True))]


def _first(file: str) -> str:
    with _opened(file) as lines:
        line = lines.readline().removesuffix(b"\n")
    if read_link(line) is None:
        return ""
    found = json.loads(line).get("timestamp")
    return found if isinstance(found, str) else ""


def _opened(file: str) -> BinaryIO:
    return cast("BinaryIO", gzip.open(file)) if file.endswith(".gz") else Path(file).open("rb")


def _print(summary: Summary, *, signed: bool, as_json: bool) -> None:
    if as_json:
        findings = [
            {"file": each.file, "line": each.line, "kind": str(each.kind), "text": each.text}
            for each in summary.findings
        ]
        found = {"records": summary.records, "events": summary.events, "lost": summary.lost, "findings": findings}
        more = {"notes": summary.notes, "open": summary.open, "unsigned": summary.unsigned if signed else None}
        print(json.dumps({**found, **more}, indent=2))
        return
    for line in _text(summary, signed=signed):
        print(printable(line))


def _text(summary: Summary, *, signed: bool) -> Iterator[str]:
    yield from map(str, summary.findings[:_SHOWN])
    if len(summary.findings) > _SHOWN:
        yield f"... and {len(summary.findings) - _SHOWN} more findings"
    for note in summary.notes:
        yield f"note: {note}"
    for place in summary.open:
        yield f"note: {place}: the log has no end: a process still writes, or was killed, or lines were cut off here"
    if not signed:
        yield "note: no --key: whoever could write the files could have computed them anew"
    elif summary.unsigned:
        yield f"note: the last {summary.unsigned} lines come after the last signature"
    if summary.lost:
        yield f"note: {summary.lost} decisions were never recorded: the queue was full"
    verdict = "FAILED" if summary.findings else "ok"
    yield f"{verdict}: {summary.records} records, {summary.events} events, {len(summary.findings)} findings"
