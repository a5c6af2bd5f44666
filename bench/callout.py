"""The arms that are asked directly, over gRPC on a unix socket."""

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Final

from bench import arms, material
from bench.http2 import Exchange, Load
from bench.measure import Figures, measure
from bench.prepare import HOT_RULES, Bench, free_port

_CPU: Final = 0
_COLD_TOKENS: Final = 10_000
_QUESTIONS: Final = 20_000  # more than the memory of answers holds: each comes round after it was forgotten

# Tokens come round after 10,000 others: a cache of a tenth has forgotten each by then, and pays for it in full.
_FORGETFUL: Final = ("--token-cache", "1000")

NOOP: Final = "no-op, native"
NOOP_GO: Final = "no-op, Go"
HOT: Final = "countersign, hot token, 10 policies"
NEW: Final = "countersign, hot token, no question twice"
MANY: Final = "countersign, hot token, 10,000 rules"
THOUSAND: Final = "countersign, hot token, 1,000 policies"
COLD: Final = "countersign, 10,000 cold tokens"
OPA: Final = "OPA's engine in a Go server"


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One line of the table: how to start the server, what it is asked, and what it must answer."""

    name: str
    command: Callable[[Path], list[str]]
    exchanges: Callable[[], Sequence[Exchange]]
    first: Exchange
    expected: dict[str, float]


def callout_arms(bench: Bench) -> Iterator[Arm]:
    """The arms that are asked directly, over gRPC on a unix socket."""
    hot = bench.checks(HOT_RULES, bench.hot)
    allow = {"allow": 1.0}

    def noop(name: str, kind: str) -> Arm:
        return Arm(name=name, command=lambda a: arms.noop(kind, a), exchanges=lambda: hot, first=hot[0], expected=allow)

    def ours(
        name: str,
        tokens: Callable[[], Sequence[str]],
        expected: dict[str, float] = allow,
        rules: int = HOT_RULES,
        *flags: str,
    ) -> Arm:
        return Arm(
            name=name,
            command=lambda address: arms.countersign(address, bench.policies(rules), free_port(), *flags),
            exchanges=lambda: bench.checks(rules, tokens()),
            first=bench.checks(rules, bench.hot)[0],
            expected=expected,
        )

    yield noop(NOOP, "native")
    yield noop("no-op, grpcio", "grpcio")
    yield ours(HOT, lambda: bench.hot)
    new = cache(partial(bench.new_checks, HOT_RULES, _QUESTIONS))
    yield replace(ours(NEW, lambda: bench.hot), exchanges=new)
    stranger = material.tokens(bench.issuer, "RS256", 1, group="team-nobody")
    yield ours("countersign, denied by policy", lambda: stranger, {"deny": 1.0})
    for name, rules in ((THOUSAND, 1_000), (MANY, 10_000)):
        yield ours(name, lambda: bench.hot, allow, rules)
    for algorithm in material.ALGORITHMS:
        cold = cache(partial(material.tokens, bench.issuer, algorithm, _COLD_TOKENS))
        yield ours(f"{COLD}, {algorithm}", cold, allow, HOT_RULES, *_FORGETFUL)
    mixed = cache(partial(material.tokens, bench.issuer, "RS256", _COLD_TOKENS, forged=2))
    yield ours("countersign, half of the tokens forged", mixed, {"allow": 0.5, "deny": 0.5}, HOT_RULES, *_FORGETFUL)


def go_arms(bench: Bench, left_out: list[str]) -> Iterator[Arm]:
    """The arms that need a Go toolchain; what cannot be had is left out, with its reason."""
    hot = bench.checks(HOT_RULES, bench.hot)
    # An arm that nobody has run is none: where this was written, the Go module proxy gave neither of them (403).
    left_out.append("opa-envoy-plugin and Heimdall: no arm, their modules could not be installed to write one")

    def arm(name: str, command: Callable[[Path], list[str]]) -> Arm:
        return Arm(name=name, command=command, exchanges=lambda: hot, first=hot[0], expected={"allow": 1.0})

    with _or_left_out(NOOP_GO, left_out):
        noop = arms.go_program("noop", bench.directory)
        yield arm(NOOP_GO, lambda address: _go([str(noop), str(address)]))
    with _or_left_out(OPA, left_out):
        opa = arms.go_program("opa", bench.directory)
        data = bench.directory / "opa.json"
        data.write_text(json.dumps(material.for_opa(HOT_RULES, bench.issuer)), encoding="utf-8")
        rego = Path(__file__).parent / "go" / "opa" / "bench.rego"
        yield arm(OPA, lambda address: _go([str(opa), str(address), str(rego), str(data)]))


@contextlib.contextmanager
def _or_left_out(name: str, left_out: list[str]) -> Iterator[None]:
    try:
        yield
    except arms.LeftOutError as error:
        left_out.append(f"{name}: {error}")


def _go(command: list[str]) -> list[str]:
    return ["env", "GOMAXPROCS=1", *command]


def run_arm(bench: Bench, arm: Arm, seconds: float) -> tuple[Figures, float]:
    """Start the server, ask it, end it: its figures, and the seconds until its first answer."""
    command = arm.command(bench.directory / "arm.sock")
    with arms.running("arm", command, bench.directory, _CPU, arm.first) as server:
        idle = server.memory()
        load = Load(server.address, arms.by_decision)
        try:
            figures = measure(load, arm.exchanges(), arm.expected, server.cpu, seconds)
        finally:
            load.close()
        return replace(figures, idle=idle, memory=server.memory()), server.started_in
