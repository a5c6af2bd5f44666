"""Our reading of Istio held against Istio's own code: ``python -m tests.envoy.istio.run``, which is ``make oracle``.

Ends with 1 if our translator makes other filters than Istio, or if a document is refused by one of us only and
nothing explains it; with 2 if Istio's code cannot be built here.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Sequence

from tests.envoy.istio import attachment, translation, validation
from tests.envoy.istio.build import NoGoError, build
from tests.envoy.istio.oracle import Oracle

_SHOWN = 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, and say what came out."""
    parser = argparse.ArgumentParser(prog="make oracle", description=__doc__)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--sets", type=int, default=5_000, help="policy sets that are translated")
    parser.add_argument("--documents", type=int, default=50_000, help="documents that are validated")
    options = parser.parse_args(arguments)
    try:
        program = build()
    except NoGoError as error:
        sys.stderr.write(f"make oracle: {error}\n")
        return 2
    sys.stdout.write(f"Istio {program.version}\n")
    with Oracle(program) as oracle:
        translated = _report("translated", translation.compare(oracle, options.seed, options.sets))
        attached = _report("attached", attachment.compare(oracle, options.seed, options.sets // 5))
        validated = _report("validated", validation.compare(oracle, options.seed, options.documents))
    return 1 if translated or attached or validated else 0


def _report(what: str, found: Iterable[tuple[str, str]]) -> int:
    """Print how often each thing came out, and some of what nothing explains; give how often that was."""
    counts: Counter[str] = Counter()
    unexplained: list[str] = []
    for kind, difference in found:
        counts[kind] += 1
        if difference:
            unexplained.append(f"--- {kind}\n{difference}")
    sys.stdout.write(f"{what}: {counts.total()}, {len(unexplained)} differences that nothing explains\n")
    for kind, count in counts.most_common():
        sys.stdout.write(f"  {count:6} x {kind}\n")
    for each in sorted(unexplained, key=len)[:_SHOWN]:
        sys.stdout.write(f"{each}\n")
    return len(unexplained)


if __name__ == "__main__":
    sys.exit(main())
