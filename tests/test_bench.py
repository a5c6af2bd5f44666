"""The benchmark times nothing that decides otherwise than the others, and says what it leaves out."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from countersign.edge import check
from countersign.mesh.issuer import Issuer, IssuerServer
from countersign.wire import outline

from bench import arms, callout, material
from bench.measure import Figures, WrongDecisionError
from bench.prepare import HOT_RULES, Bench, free_port
from bench.profile import Profile, profiled
from bench.report import Report, Target
from bench.stages import FACTS, SIGNATURE, SOUNDNESS, STAGES
from bench.targets import targets

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


def test_the_profile_of_an_arm_has_the_stages_that_it_goes_through_and_changes_nothing(bench: Bench) -> None:
    called = [vars(outline)["is_sound"], vars(check)["authorize"]]
    hot, cold = (profiled(bench, _arm(bench, name), SECONDS) for name in (callout.HOT, f"{callout.COLD}, RS256"))

    for profile in (hot, cold):
        assert profile.http2 > 0
        assert profile.python > 0
        assert profile.stages.keys() == set(STAGES)
        assert profile.stages[SOUNDNESS] > 0
    assert cold.stages[SIGNATURE] > 0
    assert cold.stages[FACTS] > 0
    assert hot.stages[SIGNATURE] == hot.stages[FACTS] == 0  # such a question is answered from memory
    assert called == [vars(outline)["is_sound"], vars(check)["authorize"]]


def test_a_server_that_decides_nothing_has_threads_and_no_stages(bench: Bench) -> None:
    profile = profiled(bench, _arm(bench, callout.NOOP), SECONDS)
    assert profile.http2 > 0
    assert profile.around == profile.python > 0


def test_a_missed_target_is_reported_with_its_profile_and_a_met_one_is_not() -> None:
    figures = Figures(rate=1, cpu_saturated=1, cpu_common=1, p50=1, p99=1, p999=1)
    missed = Target(what="a", limit=1.0, measured=1.1, arms=("one", "two"))
    others = (
        Target(what="b", limit=1.0, measured=1.0, arms=("three",)),
        Target(what="c", limit=None, measured=9.0, arms=("four",)),
        Target(what="d", limit=1.0, measured=None, arms=("five",)),
    )
    report = Report(
        figures={"one": figures},
        starts={"one": 1.0},
        through_envoy={},
        targets=(missed, *others),
        left_out=(),
        machine="",
    )
    assert report.missed() == {"one", "two"}
    assert "profile" not in report.text()

    told = replace(report, profiles={"one": Profile(http2=12.5, python=30.0, stages={SOUNDNESS: 21.5})}).text()
    head, row = told.splitlines()[-2:]
    assert dict(zip(head.split()[-len(STAGES) - 2 :], row.split()[1:], strict=True)) == {
        "HTTP/2": "12.5",
        "around": "8.5",
        **dict.fromkeys(STAGES, "0.0"),
        SOUNDNESS: "21.5",
    }


def test_every_arm_that_a_target_names_can_be_profiled(bench: Bench) -> None:
    named = {arm for target in targets({}, {}, {}, {}, 0.0, None) for arm in target.arms}
    assert named
    assert named <= {arm.name for arm in callout.callout_arms(bench)}
