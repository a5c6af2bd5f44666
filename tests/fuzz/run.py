"""Coverage-guided fuzzing: ``python -m tests.fuzz.run``, which is ``make fuzz``. Ends with 1 after a finding.

Each target runs in a process of its own, because libFuzzer ends the process in which it runs.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.fuzz.seeds import seeds
from tests.fuzz.targets import TARGETS

_HANG: Final = 20  # seconds for one input
_DONE: Final = re.compile(r"stat::number_of_executed_units: ([0-9]+)")
_TAIL: Final = 40  # lines of what a target said when it found something


def main(arguments: Sequence[str] | None = None) -> int:
    """Run every target, or those that are named."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []], help="default: all of them")
    parser.add_argument("--execs", type=int, default=0, help="executions in all")
    parser.add_argument("--seconds", type=int, default=60, help="without --execs: how long in all")
    options = parser.parse_args(arguments)
    names = options.targets or list(TARGETS)
    share = (options.execs or options.seconds) // len(names)
    limit = f"-runs={share}" if options.execs else f"-max_total_time={share}"
    return max([_run(name, limit) for name in names])


def _run(name: str, limit: str) -> int:
    target, started = TARGETS[name], time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fuzz") as directory:
        corpus, found = Path(directory, "corpus"), Path(directory, "found")
        corpus.mkdir()
        found.mkdir()
        given = [each for each in seeds(name) if len(each) <= target.longest]
        for number, seed in enumerate(given):
            (corpus / f"seed-{number}").write_bytes(seed)
        words = Path(directory, "words")
        words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words))
        command = [sys.executable, "-m", "tests.fuzz.guided", name, str(corpus), limit, f"-dict={words}"]
        command += [f"-artifact_prefix={found}/", f"-max_len={target.longest}", f"-timeout={_HANG}"]
        command += ["-rss_limit_mb=4096", "-print_final_stats=1", "-verbosity=1"]
        log = Path(directory, "log")
        with log.open("wb") as output:
            code = subprocess.run(command, stdout=output, stderr=output, check=False).returncode
        said = log.read_text(encoding="utf-8", errors="replace")
        count = int(match[1]) if (match := _DONE.search(said)) else 0
        seconds = time.monotonic() - started
        findings = [path.read_bytes() for path in found.iterdir()]
        fate = f"{len(findings)} findings" if code == 0 or findings else f"ended with {code}"
        _say(f"{name:8} {count:10} executions {seconds:6.0f} s {len(given):5} seeds  {fate}")
        if code:
            _say("\n".join(said.splitlines()[-_TAIL:]))
            _say("\n".join(map(repr, findings)))
    return 1 if code else 0


def _escaped(word: str) -> str:
    return "".join(f"\\x{octet:02x}" for octet in word.encode())


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
