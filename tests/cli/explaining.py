"""`countersign explain` in this process: what it prints and how it ends."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from countersign.cli.main import main

POLICIES: Final = Path(__file__).resolve().parents[2] / "envoy" / "policies"
SLEEP: Final = ("--as", "spiffe://cluster.local/ns/apps/sa/sleep", "--to", "apps/httpbin")
GATEWAY: Final = ("--as", "spiffe://cluster.local/ns/edge/sa/gateway", "--to", "apps/httpbin")


@dataclass(frozen=True, kw_only=True)
class Explained:
    """The end of a run."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What `-o json` printed."""
        return json.loads(self.out)


@dataclass(frozen=True)
class Explain:
    """Runs the verb; the policies are the demo's unless the words name others."""

    capsys: pytest.CaptureFixture[str]

    def __call__(self, *words: str) -> Explained:
        policies = () if "--policies" in words else ("--policies", str(POLICIES))
        try:
            code = main(["explain", *policies, *words])
        except SystemExit as ended:  # argparse's way
            code = int(ended.code or 0)
        said = self.capsys.readouterr()
        return Explained(code=code, out=said.out, err=said.err)

    def json(self, *words: str) -> Any:
        """What `-o json` prints."""
        return self(*words, "-o", "json").json
