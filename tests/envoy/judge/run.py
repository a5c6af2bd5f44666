"""The long trial: ``python -m tests.envoy.judge.run --seed 1 --pairs 50000``, which is ``make differential``.

Ends with 1 if Countersign and Envoy disagree; on HTTP each kind of disagreement is printed with its smallest case.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Final, TextIO

from tests.envoy.istio.build import NoGoError
from tests.envoy.istio.prepare import prepared_by
from tests.envoy.judge import tcp_batch
from tests.envoy.judge.batch import Score, play
from tests.envoy.judge.compare import Disagreement
from tests.envoy.judge.policy_set import Prepare
from tests.envoy.judge.report import render
from tests.envoy.judge.shrink import smallest
from tests.envoy.judge.tcp_batch import TcpScore

_SETS: Final = 150  # policy sets in one Envoy
_PAIRS: Final = 3000  # requests to one Envoy: done before the shortest token of the batch has changed
_ONE_ON_TCP: Final = 10  # every so many pairs one is a connection, not a request
_TCP_SETS: Final = 40  # each has listeners of its own
_TCP_PAIRS: Final = 1250
_SHOWN: Final = 12  # kinds of disagreement; more would be more of the same
_STATUSES: Final = 25


def main(arguments: Sequence[str] | None = None) -> int:
    """Play batches until there are enough pairs."""
    parser = argparse.ArgumentParser(prog="make differential", description=__doc__)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--pairs", type=int, default=50_000)
    parser.add_argument("--judge", choices=("ours", "istio"), default="ours", help="who makes Envoy's own filters")
    options = parser.parse_args(arguments)
    try:
        with prepared_by(options.judge) as prepare:
            return _try(options.seed, options.pairs, prepare)
    except NoGoError as error:
        sys.stderr.write(f"make differential JUDGE={options.judge}: {error}\n")
        return 2


def _try(seed: str, pairs: int, prepare: Prepare) -> int:
    started = time.monotonic()
    score, tcp = Score(), TcpScore()
    on_tcp = pairs // _ONE_ON_TCP
    for number, size in enumerate(_sizes(pairs - on_tcp, _PAIRS)):
        score.add(play(f"{seed}/{number}", _SETS, size, prepare))
        _say(f"  {score.pairs} pairs, {len(score.disagreements)} disagreements, {time.monotonic() - started:.0f} s")
    for number, size in enumerate(_sizes(on_tcp, _TCP_PAIRS)):
        tcp.add(tcp_batch.play(f"{seed}/tcp/{number}", _TCP_SETS, size, prepare))
        _say(f"  {tcp.pairs} TCP pairs, {len(tcp.disagreements)} disagreements, {time.monotonic() - started:.0f} s")
    for line in (*_summary_of_tcp(tcp), *_summary(score, prepare)):
        _say(line)
    return 1 if score.disagreements or tcp.disagreements else 0


def _sizes(pairs: int, most: int) -> Iterator[int]:
    while pairs > 0:
        yield min(pairs, most)
        pairs -= most


def _summary_of_tcp(score: TcpScore) -> Iterator[str]:
    yield from score.disagreements[:_SHOWN]
    if score.pairs:
        yield f"TCP: {score.pairs} pairs, {len(score.disagreements)} disagreements in both postures"
        yield f"Envoy lets {score.share_allowed:.1%} of the connections through"


def _summary(score: Score, prepare: Prepare) -> Iterator[str]:
    """What came out, for people."""
    for posture in ("istio", "strict"):
        count = sum(found.posture == posture for found in score.disagreements)
        yield f"posture {posture}: {score.pairs} pairs, {count} disagreements"
    yield f"{score.harsher} requests that Envoy lets through are refused in posture strict, each of them ambiguous"
    yield f"{score.late} checks took more than 150 ms and were asked again"
    yield f"Envoy lets {score.share_allowed:.1%} through; its answers:"
    yield from (
        f"  {count:6} x {status} {body}".rstrip() for (status, body), count in score.statuses.most_common(_STATUSES)
    )
    yield "what of RequestAuthentication they met:"
    yield from (f"  {count:6} x {feature}" for feature, count in sorted(score.features.items()))
    for found in list(_kinds(score.disagreements))[:_SHOWN]:
        yield render(smallest(found, prepare))


def _kinds(found: Sequence[Disagreement]) -> Iterator[Disagreement]:
    """One of each kind."""
    seen = set()
    for each in found:
        kind = (each.posture, each.native.status, each.native.body, each.countersign.status, each.countersign.body)
        if kind not in seen:
            seen.add(kind)
            yield each


def _say(line: str, to: TextIO = sys.stdout) -> None:
    to.write(f"{line}\n")
    to.flush()


if __name__ == "__main__":
    sys.exit(main())
