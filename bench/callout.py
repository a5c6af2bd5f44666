"""The arms that are asked directly, over gRPC."""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Final

from bench import arms, material, peers
from bench.http2 import Address, Exchange, Load, grpc_exchange
from bench.measure import Figures, WrongDecisionError, measure
from bench.prepare import HOT_RULES, Bench, free_port
from bench.questions import questions

_CPU: Final = 0
_COLD_TOKENS: Final = 10_000
_QUESTIONS: Final = 20_000  # more than the memory of answers holds: each comes round after it was forgotten
_ANSWER_WITHIN: Final = 10.0  # seconds

# Tokens come round after 10,000 others: a cache of a tenth has forgotten each by then, and pays for it in full.
_FORGETFUL: Final = ("--token-cache", "1000")

NOOP: Final = "no-op, native"
NOOP_GO: Final = "no-op, Go"
HOT: Final = "countersign, hot token, 10 policies"
NEW: Final = "countersign, hot token, no question twice"
MANY: Final = "countersign, hot token, 10,000 rules"
THOUSAND: Final = "countersign, hot token, 1,000 policies"
COLD: Final = "countersign, 10,000 cold tokens"
LOGGING: Final = "countersign, hot token, decision log"
AS_PEERS: Final = "countersign, hot token, asked as Heimdall is"
OPA: Final = "opa-envoy-plugin"
OPA_LOGGING: Final = "opa-envoy-plugin, decision log"
HEIMDALL: Final = "Heimdall"

Form = Callable[[bytes], bytes]  # of a CheckRequest: as Envoy sends it, or as the peers read it


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One line of the table: how to start the server, what it is asked, and what it must answer.

    ``rules`` is how many it has; without any it decides nothing and is not asked the questions. ``at`` is where it
    listens, if not on a unix socket. ``form`` says how it is sent headers.
    """

    name: str
    command: Callable[[Address], list[str]]
    exchanges: Callable[[], Sequence[Exchange]]
    first: Exchange
    expected: dict[str, float]
    rules: int = 0
    at: Address | None = None
    form: Form = bytes


def callout_arms(bench: Bench) -> Iterator[Arm]:
    """The arms that need nothing but Python."""
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
            rules=rules,
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
    log = bench.directory / "decisions.jsonl"
    yield ours(LOGGING, lambda: bench.hot, allow, HOT_RULES, "--decision-log", f"file:{log}")
    yield _as_peers(bench, ours(AS_PEERS, lambda: bench.hot), over_tcp=True)


def go_arms(bench: Bench, left_out: list[str]) -> Iterator[Arm]:
    """The arms that need a Go toolchain; what cannot be had is left out, with its reason.

    The peers verify every token anew: OPA's plugin has no cache for them, Heimdall keeps keys alone.
    """
    hot = bench.checks(HOT_RULES, bench.hot)

    def arm(name: str, command: Callable[[Address], list[str]], rules: int = HOT_RULES) -> Arm:
        expected = {"allow": 1.0}
        return Arm(
            name=name, command=command, exchanges=lambda: hot, first=hot[0], expected=expected, rules=rules
        )  # fmt: skip

    with _or_left_out(NOOP_GO, left_out):
        noop = peers.noop(bench.directory)
        yield arm(NOOP_GO, lambda address: peers.go_noop(noop, address), rules=0)
    with _or_left_out(OPA, left_out):
        opa = peers.build(peers.OPA_ENVOY, bench.directory)
        for name, log in ((OPA, False), (OPA_LOGGING, True)):
            command = partial(peers.opa_envoy, opa, bench, decision_log=log)
            yield _as_peers(bench, arm(name, command))
    with _or_left_out(HEIMDALL, left_out):
        heimdall = peers.build(peers.HEIMDALL, bench.directory)
        yield _as_peers(bench, arm(HEIMDALL, partial(peers.heimdall, heimdall, bench)), over_tcp=True)


def _as_peers(bench: Bench, arm: Arm, *, over_tcp: bool = False) -> Arm:
    """Sent headers in the one form that the peers read, on TCP where a peer listens on nothing else."""
    checks = bench.checks(HOT_RULES, bench.hot, material.joined)
    at = ("127.0.0.1", free_port()) if over_tcp else None
    return replace(arm, exchanges=lambda: checks, first=checks[0], form=material.joined, at=at)


@contextlib.contextmanager
def _or_left_out(name: str, left_out: list[str]) -> Iterator[None]:
    try:
        yield
    except peers.LeftOutError as error:
        left_out.append(f"{name}: {error}")


def run_arm(bench: Bench, arm: Arm, seconds: float) -> tuple[Figures, float]:
    """Start the server, ask it, end it: its figures, and the seconds until its first answer.

    Raise `WrongDecisionError`, before anything is timed, if it decides otherwise than every arm must.
    """
    command = arm.command(arm.at or bench.directory / "arm.sock")
    with arms.running("arm", command, bench.directory, _CPU, arm.first, arm.at) as server:
        idle = server.memory()
        load = Load(server.address, arms.by_decision)
        try:
            _judge(bench, arm, load)
            figures = measure(load, itertools.cycle(arm.exchanges()), arm.expected, server.cpu, seconds)
        finally:
            load.close()
        return replace(figures, idle=idle, memory=server.memory()), server.started_in


def _judge(bench: Bench, arm: Arm, load: Load) -> None:
    for question in questions(bench.recorded, arm.rules, bench.issuer) if arm.rules else ():
        exchange = grpc_exchange(material.CHECK, arm.form(question.message))
        answers = load.closed_loop(itertools.repeat(exchange), _ANSWER_WITHIN, 1, at_most=1).answers
        if answers != {question.expected: 1}:
            raise WrongDecisionError(f"{question.about}: expected {question.expected}, got {dict(answers)}")
