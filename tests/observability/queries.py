"""What the dashboard and the alerts ask Prometheus."""

import json
import re
from pathlib import Path
from typing import Any, Final

import yaml

DEPLOY: Final = Path(__file__).parents[2] / "deploy"
DASHBOARD: Final = DEPLOY / "grafana" / "countersign.json"
ALERTS: Final = DEPLOY / "prometheus" / "alerts.yml"
_VARIABLES: Final = {"$instance": ".*", "$__rate_interval": "20s"}  # as Grafana fills them in
_SERIES: Final = re.compile(r"\b(?:up|(?:countersign|process)_[a-z_]+)\b(?:\{[^}]*\})?")


def dashboard() -> dict[str, Any]:
    """As Grafana imports it."""
    read: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return read


def panels() -> dict[str, str]:
    """Every expression of the dashboard, by its panel's title and its letter."""
    found = {}
    for panel in dashboard()["panels"]:
        for target in panel["targets"]:
            expression = target["expr"]
            for name, value in _VARIABLES.items():
                expression = expression.replace(name, value)
            found[f"{panel['title']} {target['refId']}"] = expression
    return found


def rules() -> dict[str, dict[str, Any]]:
    """The alerts, by name."""
    groups = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def series(expression: str) -> set[str]:
    """The series that an expression reads: of an alert, for it gives nothing itself where all is well."""
    return set(_SERIES.findall(expression))
