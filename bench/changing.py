"""What a check costs while the ground moves: policies reloaded each second, keys rotated nearly as often."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

from countersign.mesh.issuer import Issuer, IssuerServer

from bench import arms, material
from bench.http2 import Address, Exchange, Load, Outcome
from bench.measure import Figures, check, measure
from bench.prepare import HOT_RULES, Bench, free_port

RELOADS: Final = "countersign, hot token, a reload each second"
ROTATIONS: Final = "countersign, hot token, a rotation each 1.25 s"

_CPU: Final = 0
_RELOADS_EACH: Final = 1.0  # seconds
_COOLDOWN: Final = "1s"  # the shortest; a key that comes sooner after a fetch is not asked for, and its token denied
_ROTATIONS_EACH: Final = 1.25  # seconds: beyond that, though a fetch is late
_RATE: Final = 2_000.0  # checks a second
_AT_LEAST: Final = 2.0  # seconds of each run: so long that something moves in it


class Moving(NamedTuple):
    """The p99 in seconds at one rate, undisturbed and disturbed, and a line of the table, disturbed."""

    calm: float
    moved: float
    figures: Figures
    started_in: float


def reloads(bench: Bench, seconds: float) -> Moving:
    """A reload each second, of a set that decides alike."""
    policies = bench.directory / "reloaded.yaml"
    text = material.istio(HOT_RULES, bench.issuer)
    policies.write_text(text, encoding="utf-8")
    checks = bench.checks(HOT_RULES, bench.hot)
    generation = 0

    def rewrite() -> None:
        nonlocal generation
        generation += 1
        _replace(policies, f"{text}\n# {generation}\n{_another(generation)}")

    command = arms.countersign(bench.directory / "arm.sock", policies, free_port())
    return _moving(bench, command, lambda: checks[0], rewrite, _RELOADS_EACH, seconds)


def rotations(bench: Bench, seconds: float) -> Moving:
    """A new signing key each 1.25 s, and tokens of it at once; the old one stays published."""
    issuer = Issuer(material.ISSUER)
    with IssuerServer(issuer) as server:
        policies = bench.directory / "rotated.yaml"
        policies.write_text(material.istio(HOT_RULES, issuer, jwks_uri=server.jwks_uri), encoding="utf-8")
        current = bench.checks(HOT_RULES, material.tokens(issuer, "RS256", 1))[0]

        def rotate() -> None:
            nonlocal current
            issuer.rotate("RS256", keep_old=True)
            current = bench.checks(HOT_RULES, material.tokens(issuer, "RS256", 1))[0]

        flags = ("--keys-cooldown", _COOLDOWN)
        command = arms.countersign(bench.directory / "arm.sock", policies, free_port(), *flags)
        return _moving(bench, command, lambda: current, rotate, _ROTATIONS_EACH, seconds)


def _moving(
    bench: Bench,
    command: list[str],
    current: Callable[[], Exchange],
    disturb: Callable[[], None],
    each: float,
    seconds: float,
) -> Moving:
    """Ask for whatever is current, undisturbed, and disturbed ``each`` so many seconds."""
    forever = iter(current, None)
    with arms.running("arm", command, bench.directory, _CPU, current()) as server:
        idle = server.memory()
        calm = _p99(server.address, forever, seconds)
        with _repeated(disturb, each):
            moved = _p99(server.address, forever, seconds)
            load = Load(server.address, arms.by_decision)
            try:
                figures = measure(load, forever, {"allow": 1.0}, server.cpu, max(_AT_LEAST, seconds / 4))
            finally:
                load.close()
        return Moving(calm, moved, replace(figures, idle=idle, memory=server.memory()), server.started_in)


def _p99(address: Address, exchanges: Iterator[Exchange], seconds: float) -> float:
    load = Load(address, arms.by_decision)
    try:
        outcome: Outcome = load.open_loop(exchanges, seconds, _RATE)
    finally:
        load.close()
    check(outcome, {"allow": 1.0}, tolerance=0.0)
    return outcome.percentile(0.99)


@contextlib.contextmanager
def _repeated(act: Callable[[], None], period: float) -> Iterator[None]:
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(period):
            act()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _replace(file: Path, text: str) -> None:
    new = file.with_suffix(".new")
    new.write_text(text, encoding="utf-8")
    new.replace(file)


def _another(number: int) -> str:
    """A policy that applies to nobody here, so that each set differs from the last and decides alike."""
    metadata = f"{{name: other-{number}, namespace: elsewhere}}"
    return f"---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {metadata}\nspec: {{}}\n"
