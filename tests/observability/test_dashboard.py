"""The dashboard: laid out well, of every metric that there is, and what Grafana's own types take."""

import copy
import importlib
import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.observability.queries import ALERTS, dashboard, panels

METRICS = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    found = dashboard()["panels"]
    places = [panel["gridPos"] for panel in found]

    assert len({panel["id"] for panel in found}) == len({panel["title"] for panel in found}) == len(found)
    assert all(place["x"] + place["w"] <= 24 for place in places)  # Grafana's grid
    for one, other in itertools.combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert beside or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"], (one, other)


def test_every_metric_is_on_the_dashboard_or_in_an_alert() -> None:
    rows = [line for line in METRICS.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(countersign_\w+)`", row.split("|")[1])}
    text = " ".join((*panels().values(), json.dumps(dashboard()["templating"]), ALERTS.read_text(encoding="utf-8")))
    found = set(re.findall(r"countersign_\w+", text))
    asked = found | {re.sub("_(bucket|sum|count)$", "", name) for name in found}

    assert named - asked == set()


def taken(given: dict[str, Any]) -> Any:
    """What is left of a dashboard in Grafana's types: they have no place for what Grafana does not know."""
    try:
        models = importlib.import_module("grafana_foundation_sdk.models.dashboard")
        cog = importlib.import_module("grafana_foundation_sdk.cog.plugins")
        encoder = importlib.import_module("grafana_foundation_sdk.cog.encoder")
    except ImportError:
        pytest.skip("no types of Grafana's here: `make observability` installs them")
    cog.register_default_plugins()
    return json.loads(encoder.JSONEncoder().encode(models.Dashboard.from_json(given)))


def missing(given: Any, left: Any, place: str = "") -> list[str]:
    """Where one has something that the other has not."""
    if isinstance(given, dict) and isinstance(left, dict):
        return [
            each
            for key, value in given.items()
            for each in (missing(value, left[key], f"{place}.{key}") if key in left else [f"{place}.{key}"])
        ]
    if isinstance(given, list) and isinstance(left, list) and len(given) == len(left):
        pairs = enumerate(zip(given, left, strict=True))
        return [each for number, (one, other) in pairs for each in missing(one, other, f"{place}[{number}]")]
    return [] if given == left else [place]


def test_grafanas_types_have_a_place_for_everything_in_the_dashboard() -> None:
    assert missing(dashboard(), taken(dashboard())) == []


def test_they_have_none_for_a_key_that_grafana_does_not_know() -> None:
    wrong = copy.deepcopy(dashboard())
    wrong["panels"][0]["titel"] = "x"
    wrong["panels"][1]["targets"][0]["legendFromat"] = "x"

    assert missing(wrong, taken(wrong)) == [".panels[0].titel", ".panels[1].targets[0].legendFromat"]
