"""Each alert of deploy/prometheus fires when it should and is silent where all is well, by Prometheus' promtool.

Series are in promtool's notation: `0+1x10` begins at 0 and adds 1 in each of 10 more steps of a minute, `4x10` stays.
"""

import json
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from tests.observability.queries import ALERTS, rules

RULES: Final = rules()
FLAT, STEPS, GROWING = "5x30", "0x10 1x20", "0+60x30"
A: Final = 'instance="a"'
CHECKS: Final = "countersign_checks_total"
DURATION: Final = "countersign_check_duration_seconds_bucket"
EXPIRY: Final = "countersign_tls_certificate_expiry_timestamp_seconds"
START: Final = "countersign_tls_certificate_start_timestamp_seconds"


@dataclass(frozen=True, kw_only=True)
class Case:
    """``fires``: series with which it fires ``at`` a time, with these labels; ``early``: when it does not yet.

    ``silent``: its allowed twin, with which it never does.
    """

    alert: str
    fires: Mapping[str, str]
    silent: Mapping[str, str]
    labels: Mapping[str, str] = field(default_factory=lambda: {"instance": "a"})
    description: str
    at: str = "12m"
    early: str = "9m"


def durations(within: float) -> Mapping[str, str]:
    """A thousand checks a minute, all of which take so long, and no longer."""
    bounds = (0.001024, 0.032768, 0.065536)
    grown = {str(bound): "0+1000x30" if bound >= within else "0x31" for bound in bounds} | {"+Inf": "0+1000x30"}
    return {f'{DURATION}{{{A},stage="total",le="{bound}"}}': values for bound, values in grown.items()}


LIFE: Final = {f"{EXPIRY}{{{A}}}": "86400x1300", f"{START}{{{A}}}": "0x1300"}  # of a day

CASES: Final = (
    Case(
        alert="CountersignDown",
        fires={f'up{{job="countersign",{A}}}': "1x9 0x20"},
        silent={f'up{{job="countersign",{A}}}': "1x9 0x0 1x20", f'up{{job="other",{A}}}': "0x30"},
        labels={"instance": "a", "job": "countersign"},
        description="Envoy denies what nobody decides. a",
    ),
    Case(
        alert="CountersignDown",
        fires={f"countersign_processes{{{A}}}": "2x30", f"countersign_processes_serving{{{A}}}": "2x9 1x20"},
        silent={f"countersign_processes{{{A}}}": "2x30", f"countersign_processes_serving{{{A}}}": "2x30"},
        description="Envoy denies what nobody decides. a",
    ),
    Case(
        alert="CountersignInternalErrors",
        fires={f'{CHECKS}{{{A},reason="internal-error"}}': STEPS},
        silent={f'{CHECKS}{{{A},reason="internal-error"}}': FLAT, f'{CHECKS}{{{A},reason="mtls-required"}}': GROWING},
        description="The log of a says where.",
    ),
    *(
        Case(
            alert="CountersignSheds",
            fires={f'{CHECKS}{{{A},reason="{reason}"}}': "0x9 60+60x20"},
            silent={f'{CHECKS}{{{A},reason="{reason}"}}': FLAT, f'{CHECKS}{{{A},reason="mtls-required"}}': GROWING},
            description="More workers or replicas are needed, or Envoy's timeout is too short. a",
            at="13m",
        )
        for reason in ("server-overloaded", "deadline-passed")
    ),
    Case(
        alert="CountersignSlow",
        fires=durations(within=0.065536),
        silent=durations(within=0.032768),
        description="a: 65.21ms",
    ),
    Case(
        alert="CountersignPoliciesRefused",
        fires={f'countersign_policy_loads_total{{{A},result="bad"}}': STEPS},
        silent={
            f'countersign_policy_loads_total{{{A},result="bad"}}': FLAT,
            f'countersign_policy_loads_total{{{A},result="good"}}': GROWING,
        },
        labels={"instance": "a", "result": "bad"},
        description="The log of a has file, line and column.",
    ),
    Case(
        alert="CountersignClusterLost",
        fires={f"countersign_cluster_watched{{{A}}}": "1x5 0x30"},
        silent={f"countersign_cluster_watched{{{A}}}": "1x5 0x3 1x30"},
        description="The log of a and /readyz?verbose say why.",
    ),
    Case(
        alert="CountersignKeysFailing",
        fires={f'countersign_keys_failures{{{A},source="s"}}': "0x5 4x30"},
        silent={f'countersign_keys_failures{{{A},source="s"}}': "0x5 3x30"},
        labels={"instance": "a", "source": "s"},
        description="s: those at hand still count, see countersign_keys_expire_seconds",
    ),
    Case(
        alert="CountersignKeysExpire",
        fires={f'countersign_keys_expire_seconds{{{A},source="s"}}': "14700-60x30"},
        silent={
            f'countersign_keys_expire_seconds{{{A},source="s"}}': "14400x30",
            f'countersign_keys{{{A},source="s"}}': "1x30",
        },
        labels={"instance": "a", "source": "s"},
        description="s has not confirmed its keys",
    ),
    Case(
        alert="CountersignKeysExpire",
        fires={f'countersign_keys{{{A},source="s"}}': "3x5 0x30"},
        silent={f'countersign_keys{{{A},source="s"}}': "3x5 1x30"},
        labels={"instance": "a", "source": "s"},
        description="s has not confirmed its keys",
    ),
    Case(
        alert="CountersignCertificateExpires",
        fires=LIFE,
        silent={f"{EXPIRY}{{{A}}}": "172800x1300", f"{START}{{{A}}}": "0x600 43200x700"},
        description="nothing has replaced that of a",
        at="20h",
        early="19h",
    ),
    Case(
        alert="CountersignCertificateRefused",
        fires={f"countersign_tls_certificate_refused{{{A}}}": "0x5 1x30"},
        silent={f"countersign_tls_certificate_refused{{{A}}}": "0x5 1x2 0x30"},
        description="a keeps the old one; its /readyz?verbose says why",
    ),
    *(
        Case(
            alert="CountersignPeerMismatch",
            fires={f'{CHECKS}{{{A},reason="{reason}"}}': STEPS},
            silent={f'{CHECKS}{{{A},reason="{reason}"}}': FLAT, f'{CHECKS}{{{A},reason="mtls-required"}}': GROWING},
            labels={"instance": "a", "reason": reason},
            description=f"{reason}: a forged header, or an Envoy that forwards what it should replace",
        )
        for reason in ("peer-mismatch", "peer-malformed")
    ),
    Case(
        alert="CountersignDecisionsUnrecorded",
        fires={f"countersign_decision_log_lost_total{{{A}}}": STEPS},
        silent={f"countersign_decision_log_lost_total{{{A}}}": FLAT},
        description="Its queue was full. a",
    ),
    Case(
        alert="CountersignDryRunWouldDeny",
        fires={f'countersign_dry_run_total{{{A},decision="allow",would="deny",reason="r"}}': STEPS},
        silent={
            f'countersign_dry_run_total{{{A},decision="allow",would="deny",reason="r"}}': FLAT,
            f'countersign_dry_run_total{{{A},decision="deny",would="deny",reason="r"}}': GROWING,
            f'countersign_dry_run_total{{{A},decision="allow",would="allow",reason="r"}}': GROWING,
        },
        labels={"reason": "r"},
        description="r",
    ),
)


@pytest.fixture(scope="session")
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("no promtool here: apt-get install prometheus")
    return found


def run(promtool: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([promtool, *words], capture_output=True, text=True, timeout=60, check=False)


def unit(series: Mapping[str, str], alert: str, fired: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """One test of promtool: what has fired at each of the times."""
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": [
            {"eval_time": time, "alertname": alert, "exp_alerts": alerts} for time, alerts in fired.items()
        ],
    }


def judged(promtool: str, directory: Path, *units: dict[str, Any]) -> str:
    """What promtool has against them; empty if nothing."""
    file = directory / "unit.yml"
    tests = {"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": list(units)}
    file.write_text(json.dumps(tests))  # which is YAML
    result = run(promtool, "test", "rules", str(file))
    return "" if result.returncode == 0 else result.stdout + result.stderr


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.alert)
def test_an_alert_fires_when_it_should_and_says_what_is_wrong(case: Case, promtool: str, tmp_path: Path) -> None:
    rule = RULES[case.alert]
    annotations = {"summary": rule["annotations"]["summary"], "description": case.description}
    fired = [{"exp_labels": {**case.labels, **rule["labels"]}, "exp_annotations": annotations}]

    assert judged(promtool, tmp_path, unit(case.fires, case.alert, {case.early: [], case.at: fired})) == ""


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.alert)
def test_an_alert_is_silent_where_all_is_well(case: Case, promtool: str, tmp_path: Path) -> None:
    times = (case.early, case.at, "30m")

    assert judged(promtool, tmp_path, unit(case.silent, case.alert, {time: [] for time in times})) == ""


def test_no_alert_is_without_its_case_and_promtool_takes_both_files(promtool: str) -> None:
    assert {case.alert for case in CASES} == RULES.keys()
    for kind, name in (("config", "prometheus.yml"), ("rules", "alerts.yml")):
        result = run(promtool, "check", kind, str(ALERTS.parent / name))
        assert result.returncode == 0, result.stdout + result.stderr


def test_promtool_tells_a_rule_that_does_not_fire(promtool: str, tmp_path: Path) -> None:
    case = CASES[0]
    never = unit(case.silent, case.alert, {case.at: [{"exp_labels": dict(case.labels)}]})

    assert "FAILED" in judged(promtool, tmp_path, never)
