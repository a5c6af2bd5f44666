"""What a full Countersign weighs."""

import itertools

from bench import arms, material
from bench.http2 import Load
from bench.measure import CONCURRENCY, check
from bench.prepare import Bench, free_port

_CPU = 0
_RULES = 10_000
_TOKENS = 100_000
_WITHIN = 300.0  # seconds


def filled(bench: Bench) -> float:
    """MB of one process with 10,000 rules that has seen 100,000 different tokens and keeps them."""
    tokens = bench.checks(_RULES, material.tokens(bench.issuer, "EdDSA", _TOKENS))
    address = bench.directory / "arm.sock"
    flags = ("--token-cache", str(_TOKENS))
    command = arms.countersign(address, bench.policies(_RULES), free_port(), *flags)
    with arms.running("arm", command, bench.directory, _CPU, tokens[0]) as server:
        load = Load(server.address, arms.by_decision)
        try:
            outcome = load.closed_loop(itertools.cycle(tokens), _WITHIN, CONCURRENCY, at_most=_TOKENS)
        finally:
            load.close()
        check(outcome, {"allow": 1.0})
        return server.memory()
