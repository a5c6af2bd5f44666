"""Values that are made anew for every check."""

import subprocess
import sys
from pathlib import Path

import pytest
from countersign.core.decision import Allow, AllowReason, Mutations
from countersign.core.facts import Endpoint

WRITES = """
from countersign.core.facts import Endpoint

end = Endpoint(port=1)
end.port = 2
"""
READS = WRITES.replace("end.port = 2", "assert end.port == 2")


@pytest.mark.parametrize(
    ("text", "findings"), [(WRITES, ['Property "port" defined in "Endpoint" is read-only']), (READS, [])]
)
def test_the_type_checker_refuses_to_change_a_value(tmp_path: Path, text: str, findings: list[str]) -> None:
    module = tmp_path / "module.py"
    module.write_text(text)

    # Not in this process, in which it would change for good when Python searches for garbage.
    options = ("--strict", "--follow-imports=silent", "--no-error-summary", "--cache-dir", str(tmp_path))
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", str(module), *options], capture_output=True, text=True, timeout=120, check=False
    )

    assert checked.returncode == len(findings), checked.stderr
    assert [line.partition("error: ")[2].partition("  [")[0] for line in checked.stdout.splitlines()] == findings


def test_equal_values_are_one_key_and_others_are_not() -> None:
    one, other = (
        Allow(reason=AllowReason.RULE_MATCHED, policy=None, mutations=Mutations(), generation=n) for n in (1, 2)
    )
    again = Allow(reason=AllowReason.RULE_MATCHED, policy=None, mutations=Mutations(), generation=1)

    assert len({one, other, again}) == 2
    assert one == again


def test_a_value_takes_no_field_that_is_not_declared() -> None:
    with pytest.raises(AttributeError):
        object.__setattr__(Endpoint(), "ports", 1)
