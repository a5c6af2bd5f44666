"""The command line: verbs, usage, exit codes."""

import subprocess
import sys

import pytest
from countersign import authorize
from countersign.cli.main import VERBS


def countersign(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "countersign", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_help_lists_every_verb() -> None:
    result = countersign("--help")

    assert result.returncode == 0
    assert all(verb in result.stdout for verb in VERBS)


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_has_help(verb: str) -> None:
    result = countersign(verb, "--help")

    assert result.returncode == 0
    assert f"countersign {verb}" in result.stdout


@pytest.mark.parametrize("words", [(), ("server",), ("--listen", "x")])
def test_what_is_no_verb_is_refused_with_one_line(words: tuple[str, ...]) -> None:
    result = countersign(*words)

    assert result.returncode == 2
    assert len(result.stderr.strip().splitlines()) == 1
    assert "see countersign --help" in result.stderr


def test_version_says_what_it_speaks() -> None:
    result = countersign("version")

    assert result.returncode == 0
    assert result.stdout.startswith("countersign 0.1.0 (ext_authz v3")
    code = "interpreted" if str(authorize.__file__).endswith(".py") else "compiled"
    assert result.stdout.endswith(f"; {code})\n")


@pytest.mark.parametrize("verb", ["health", "version"])
def test_small_verbs_import_nothing_heavy(verb: str) -> None:
    code = (
        "import sys; sys.argv[1:] = [sys.argv[1], '--help']\n"
        "from countersign.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'grpc', 'httpx', 'jwt', 'cryptography', 'yaml', 'rich', 'google'} & set(sys.modules)\n"
        "sys.exit(','.join(heavy) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", code, verb], capture_output=True, text=True, timeout=60, check=False)

    assert result.returncode == 0, result.stderr
