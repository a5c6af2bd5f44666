"""`countersign health` runs every few seconds in every container: it loads what one GET needs."""

import subprocess
import sys

# Each of these costs more than everything that the verb needs, or is the door to such.
HEAVY = {"asyncio", "google", "grpc", "httpx", "cryptography", "jwt", "yaml", "watchfiles", "rich", "json", "logging",
         "http.client", "ssl", "dataclasses", "inspect"}  # fmt: skip
MOST = 100  # modules beyond those of the interpreter itself; 75 with CPython 3.11


def _modules(program: str) -> set[str]:
    result = subprocess.run(
        [sys.executable, "-c", f"import sys; {program}; print(*sys.modules)"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return set(result.stdout.splitlines()[-1].split())


def test_health_imports_nothing_heavy() -> None:
    loaded = _modules("from countersign.cli.main import main; main(['health', '--probes', '127.0.0.1:1'])")

    assert "countersign.cli.health" in loaded
    assert not loaded & HEAVY
    assert {name for name in loaded if name.startswith("countersign.")} == {
        "countersign.cli", "countersign.cli.main", "countersign.cli.health",
        "countersign.edge", "countersign.edge.collector",
    }  # fmt: skip
    assert len(loaded - _modules("pass")) <= MOST
