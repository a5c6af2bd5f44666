"""The benchmark times nothing that decides otherwise than the others, and says what it leaves out."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from countersign.mesh.issuer import Issuer, IssuerServer

from bench import arms, callout, material
from bench.measure import WrongDecisionError
from bench.prepare import HOT_RULES, Bench, free_port

SECONDS = 0.05


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    issuer = Issuer(material.ISSUER)
    with IssuerServer(issuer) as server:
        yield Bench(tmp_path_factory.mktemp("bench"), issuer, server.jwks_uri)


def _arm(bench: Bench, name: str) -> callout.Arm:
    return next(arm for arm in callout.callout_arms(bench) if arm.name == name)


@pytest.mark.parametrize("name", [callout.HOT, callout.AS_PEERS])
def test_an_arm_that_decides_as_every_arm_must_is_timed(bench: Bench, name: str) -> None:
    figures, started = callout.run_arm(bench, _arm(bench, name), SECONDS)
    assert figures.rate > 0
    assert figures.cpu_saturated > 0
    assert started > 0


@pytest.mark.parametrize(
    ("part", "condition", "question"),
    [
        (lambda rule: rule, "when", "another group"),
        (lambda rule: rule["to"][0]["operation"], "methods", "another method"),
        (lambda rule: rule["from"][0]["source"], "principals", "another workload"),
    ],
)
def test_an_arm_with_a_weaker_rule_is_not_timed_and_the_question_is_named(
    bench: Bench, part: Callable[[dict[str, Any]], dict[str, Any]], condition: str, question: str
) -> None:
    documents = list(yaml.safe_load_all(bench.policies(HOT_RULES).read_text(encoding="utf-8")))
    del part(documents[-1]["spec"]["rules"][0])[condition]
    policies = bench.directory / "weaker.yaml"
    policies.write_text(yaml.safe_dump_all(documents), encoding="utf-8")
    arm = replace(_arm(bench, callout.HOT), command=lambda at: arms.countersign(at, policies, free_port()))
    with pytest.raises(WrongDecisionError, match=f"^{question}: expected deny, got .*allow"):
        callout.run_arm(bench, arm, SECONDS)


def test_without_go_the_table_says_what_was_left_out_and_why(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(Path("/nowhere")))
    left_out: list[str] = []
    assert list(callout.go_arms(bench, left_out)) == []
    assert left_out == [f"{name}: no Go toolchain" for name in (callout.NOOP_GO, callout.OPA, callout.HEIMDALL)]
