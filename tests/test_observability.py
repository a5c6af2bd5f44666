"""Dashboard, alerts and documentation speak of metrics, labels and reasons that exist, and the table of all of them."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from countersign.core.decision import AllowReason, Reason
from countersign.core.jwt_rule import RemoteKeys
from countersign.edge.kubernetes.address import Cluster
from countersign.edge.kubernetes.standing import ClusterStanding
from countersign.edge.metrics.exposition import Exposition
from countersign.edge.metrics.state import Counted, Loads, State
from countersign.edge.metrics.tally import Kind, Totals
from countersign.edge.tls.source import TlsStanding
from countersign.tokens.keyring import Keyring
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

ROOT: Final = Path(__file__).parents[1]
ALERTS: Final = ROOT / "deploy" / "prometheus" / "alerts.yml"
DASHBOARD: Final = ROOT / "deploy" / "grafana" / "countersign.json"
TABLE: Final = ROOT / "docs" / "metrics.md"
_NAME: Final = re.compile(r"\b(?:countersign|process)_[a-z_]+\b")
_SELECTED: Final = re.compile(r"\b((?:countersign|process)_[a-z_]+)\{([^}]*)\}")
_OF_PROMETHEUS: Final = {"instance", "job", "le"}


def exposed() -> dict[str, Metric]:
    """Every family, with a sample of each series that there can be."""
    source = RemoteKeys("https://issuer.test/jwks.json", 5.0)
    keyring = Keyring()
    keyring.track([source], 0.0)
    keyring.failed(source, "gone", 1.0)
    kind = Kind(AllowReason.RULE_MATCHED, "policy", would=Reason.DENY_RULE_MATCHED, issuer="https://issuer.test")
    state = State(
        counted=Counted(totals=Totals(kinds={kind: 1})),
        loads=Loads(good=1),
        keys=keyring.states(2.0),
        cluster=ClusterStanding(cluster=Cluster(), problem="", contact=1.0, lists=3, failures=0),
        tls=TlsStanding(not_before=0.0, not_after=1.0, loaded=1.0, problem="", rotations=0),
    )
    text = Exposition(lambda: state).text().decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


@pytest.fixture(scope="module")
def labels() -> dict[str, set[str]]:
    """Names of samples, and the labels that they have."""
    found: dict[str, set[str]] = {}
    for family in exposed().values():
        found.setdefault(family.name, set())
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    # Of sources that have given keys; the one above has not.
    return found | {f"countersign_keys_{name}_seconds": {"source"} for name in ("age", "expire")}


def expressions() -> list[str]:
    alerts = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    rules = [rule["expr"] for group in alerts["groups"] for rule in group["rules"]]
    panels = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    variables = [each["query"]["query"] for each in dashboard["templating"]["list"] if each["type"] == "query"]
    return [*rules, *panels, *variables]


def test_alerts_and_dashboard_ask_for_metrics_and_labels_that_exist(labels: dict[str, set[str]]) -> None:
    assert len(expressions()) > 20
    for expression in expressions():
        names = set(_NAME.findall(expression))
        assert names
        assert names <= labels.keys(), expression
        for name, selector in _SELECTED.findall(expression):
            asked = set(re.findall(r"(\w+)=", selector))
            assert asked <= labels[name] | _OF_PROMETHEUS, expression
        grouped = {each.strip() for by in re.findall(r"by \(([^)]*)\)", expression) for each in by.split(",")}
        assert grouped <= set().union(*(labels[name] for name in names)) | _OF_PROMETHEUS, expression


def test_the_reasons_that_alerts_select_exist() -> None:
    reasons = {str(each) for each in (*AllowReason, *Reason)}
    for expression in expressions():
        for pattern in re.findall(r'reason=~?"([^"]*)"', expression):
            for each in pattern.split("|"):
                assert any(re.fullmatch(each, reason) for reason in reasons), expression


def test_the_table_has_every_metric_and_no_other(labels: dict[str, set[str]]) -> None:
    rows = [line for line in TABLE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(countersign_\w+)`", row.split("|")[1])}
    ends = ("_bucket", "_sum", "_count", "_created")
    ours = {name for name in labels if name.startswith("countersign_") and not name.endswith(ends)}
    families = exposed()
    exposed_names = {f"{name}_total" if families[name].type == "counter" else name for name in ours & families.keys()}
    assert named == exposed_names | {"countersign_keys_age_seconds", "countersign_keys_expire_seconds"}
    for row in rows:
        names = re.findall(r"`(countersign_\w+)`", row.split("|")[1])
        told = set(re.findall(r"`(\w+)`", row.split("|")[2]))
        for name in names:
            assert told == {each for key in (name, f"{name}_bucket") for each in labels.get(key, ())} - {"le"}, row


def test_each_alert_says_what_it_is_about() -> None:
    alerts: Any = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))
    for rule in alerts["groups"][0]["rules"]:
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in ("page", "warn", "info")


def test_what_to_do_is_written_for_each_alert_and_for_no_other() -> None:
    alerts = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))
    told = re.findall(r"^### (\w+)$", (ROOT / "docs" / "operating.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert told == [rule["alert"] for group in alerts["groups"] for rule in group["rules"]]


def test_each_alert_has_something_to_look_at_and_all_of_it_exists(labels: dict[str, set[str]]) -> None:
    """A verb, an address of the probes or the admin API, or a metric; flags are those of ``serve`` or of the verb."""
    pages = [(ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("lifecycle.md", "admin.md")]
    _, *sections = re.split(
        r"^### \w+$", (ROOT / "docs" / "operating.md").read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    for section in sections:
        quoted = [" ".join(each.split()) for each in re.findall(r"`([^`]+)`", section)]
        verbs = {each for each in quoted if each.startswith("countersign ")}
        addresses = {each for each in quoted if each.startswith("/")}
        metrics = {each for each in quoted if each.startswith("countersign_")}
        assert verbs | addresses | metrics, section
        assert metrics <= labels.keys(), section
        assert all(any(f"`{each}" in page or f" {each}" in page for page in pages) for each in addresses), section
        for command in {f"countersign serve {flag}" for flag in quoted if flag.startswith("--")} | verbs:
            words = [word for word in command.split()[1:] if not word.startswith("--")]
            parser = [sys.executable, "-m", "countersign", *words, "--help"]
            shown = subprocess.run(parser, capture_output=True, text=True, timeout=60, check=True).stdout
            assert all(word in shown for word in command.split() if word.startswith("--")), command


def test_each_test_that_the_security_model_names_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)`", (ROOT / "docs" / "security.md").read_text(encoding="utf-8"))
    assert len(named) > 9
    assert [each for each in named if not (ROOT / each).is_file()] == []
