"""Latency while the ground moves: policies reloaded each second, keys rotated each second."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from countersign.mesh.issuer import Issuer, IssuerServer

from bench import arms, material
from bench.http2 import Address, Exchange, Load, Outcome
from bench.measure import check
from bench.prepare import HOT_RULES, Bench, free_port

_CPU = 0
_PERIOD = 1.0  # seconds
_RATE = 2_000.0  # checks a second


def reloads(bench: Bench, seconds: float) -> tuple[float, float]:
    """The p99 in seconds, undisturbed and with a reload each second."""
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
    with arms.running("arm", command, bench.directory, _CPU, checks[0]) as server:
        calm = _p99(server.address, iter_forever(lambda: checks[0]), seconds)
        with _each_period(rewrite):
            moving = _p99(server.address, iter_forever(lambda: checks[0]), seconds)
    return calm, moving


def rotations(bench: Bench, seconds: float) -> tuple[float, float]:
    """The p99 in seconds, undisturbed and with a new signing key each second; the old one stays published."""
    issuer = Issuer(material.ISSUER)
    with IssuerServer(issuer) as server:
        policies = bench.directory / "rotated.yaml"
        policies.write_text(material.istio(HOT_RULES, issuer, jwks_uri=server.jwks_uri), encoding="utf-8")
        current = bench.checks(HOT_RULES, material.tokens(issuer, "RS256", 1))[0]

        def rotate() -> None:
            nonlocal current
            issuer.rotate("RS256", keep_old=True)
            current = bench.checks(HOT_RULES, material.tokens(issuer, "RS256", 1))[0]

        flags = ("--keys-cooldown", "1s")
        command = arms.countersign(bench.directory / "arm.sock", policies, free_port(), *flags)
        with arms.running("arm", command, bench.directory, _CPU, current) as authorizer:
            calm = _p99(authorizer.address, iter_forever(lambda: current), seconds)
            with _each_period(rotate):
                moving = _p99(authorizer.address, iter_forever(lambda: current), seconds)
    return calm, moving


def iter_forever(current: Callable[[], Exchange]) -> Iterator[Exchange]:
    """Whatever is current, for ever."""
    while True:
        yield current()


def _p99(address: Address, exchanges: Iterator[Exchange], seconds: float) -> float:
    load = Load(address, arms.by_decision)
    try:
        outcome: Outcome = load.open_loop(exchanges, seconds, _RATE)
    finally:
        load.close()
    check(outcome, {"allow": 1.0}, tolerance=0.0)
    return outcome.percentile(0.99)


@contextlib.contextmanager
def _each_period(act: Callable[[], None]) -> Iterator[None]:
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(_PERIOD):
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
