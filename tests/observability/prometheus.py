"""The real Prometheus, on loopback, with the settings of deploy/prometheus but for its targets and its pace."""

import json
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import yaml
from countersign.mesh.process import Child, wait_until

from tests.cli.serving import free_port
from tests.observability.queries import ALERTS

_WITHIN: Final = 30.0  # seconds


class Prometheus:
    """It runs from entering the context to leaving it. ``targets``: ports of probes on this machine."""

    def __init__(self, program: str, directory: Path, targets: list[int]) -> None:
        self._program, self._directory, self._port = program, directory, free_port()
        settings = yaml.safe_load((ALERTS.parent / "prometheus.yml").read_text(encoding="utf-8"))
        settings["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        settings["rule_files"] = [str(ALERTS)]
        (job,) = settings["scrape_configs"]
        job["static_configs"] = [{"targets": [f"127.0.0.1:{port}" for port in targets]}]
        self._settings = directory / "prometheus.yml"
        self._settings.write_text(json.dumps(settings), encoding="utf-8")

    def __enter__(self) -> Self:
        flags = [
            f"--config.file={self._settings}",
            f"--storage.tsdb.path={self._directory / 'series'}",
            f"--web.listen-address=127.0.0.1:{self._port}",
        ]
        self.child = Child("prometheus", [self._program, *flags], directory=self._directory)
        wait_until("Prometheus", self._ready, within=_WITHIN, child=self.child)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.child.stop()

    def _ready(self) -> bool | None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/-/ready", timeout=_WITHIN) as answer:
                return answer.status == 200 or None
        except OSError:
            return None

    def _ask(self, path: str, **parameters: str) -> Any:
        url = f"http://127.0.0.1:{self._port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=_WITHIN) as answer:
                return json.loads(answer.read())["data"]
        except urllib.error.HTTPError as refused:
            raise AssertionError(f"{parameters}: {refused.read().decode()}") from None

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Labels and value of each series now. Raise `AssertionError` with Prometheus' own words for a bad one."""
        found: list[dict[str, Any]] = self._ask("query", query=expression)["result"]
        return found

    def rules(self) -> dict[str, dict[str, Any]]:
        """State, health and last error of each alert."""
        return {rule["name"]: rule for group in self._ask("rules")["groups"] for rule in group["rules"]}

    def active(self) -> set[str]:
        """The alerts that fire, or would if it stayed so."""
        return {name for name, rule in self.rules().items() if rule["state"] != "inactive"}
