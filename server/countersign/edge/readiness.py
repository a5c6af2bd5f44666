"""Readiness as a list of checks, each with its reason, in the form that Kubernetes' own components print.

Source: k8s.io/apiserver pkg/server/healthz, ``[+]name ok`` and ``[-]name failed: reason``. Here ``[!]`` is something
that is wrong and keeps nobody away.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that readiness asks for. ``wrong``: what is wrong, a clause that stands alone; empty if nothing is.

    ``counts``: whether requests should stay away for it.
    """

    name: str
    wrong: str = ""
    counts: bool = True

    @property
    def fails(self) -> bool:
        """Whether requests should stay away for it, now."""
        return bool(self.wrong) and self.counts

    def __str__(self) -> str:
        """Its line."""
        if not self.wrong:
            return f"[+]{self.name} ok"
        return f"[-]{self.name} failed: {self.wrong}" if self.counts else f"[!]{self.name}: {self.wrong}"


Checks = Sequence[Check]


def not_ready(checks: Checks) -> str:
    """Why requests should stay away; empty if they should not."""
    return "; ".join(check.wrong for check in checks if check.fails)


def verbose(checks: Checks, name: str) -> str:
    """Every check on a line of its own, and the outcome of all. ``name`` is what was asked, such as ``readyz``."""
    outcome = "failed" if not_ready(checks) else "passed"
    return "\n".join([*map(str, checks), f"{name} check {outcome}"])
