"""Shows the rows: a table on a terminal, aligned text in a pipe, JSON for scripts."""

import json
from collections.abc import Sequence
from typing import Any, Final, Literal

from countersign.mesh.run import Row
from countersign.mesh.scenario import Caller

_CALLERS: Final = {
    Caller.SLEEP: "sleep (mTLS)",
    Caller.BATCH: "batch (mTLS)",
    Caller.STRANGER: "stranger (plain)",
    Caller.EDGE: "user (edge)",
}
_HEAD: Final = ("", "caller", "request", "token", "HTTP", "decision", "because", "what it shows")
_BREAK: Final = " · "
_COLUMNS: Final = ("#", "caller", "request", "token", "HTTP", "decision", "because")
_WIDEST: Final = {"request": 25, "token": 10, "caller": 10}  # so that a policy's id fits into the rest of 120 columns


def as_json(rows: Sequence[Row], seconds: float) -> str:
    """Everything, for scripts."""
    return json.dumps({"rows": [_record(row) for row in rows], **_summary(rows, seconds)}, indent=2)


def as_text(rows: Sequence[Row]) -> str:
    """One aligned line a row."""
    lines = [_HEAD, *(_cells(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def verdict(rows: Sequence[Row], seconds: float) -> str:
    """How many rows are right and, one line each, what is wrong with the others."""
    summary = _summary(rows, seconds)
    lines = [f"{summary['right']} of {summary['requests']} requests went as they should, in {summary['seconds']} s"]
    for number, row in enumerate(rows, 1):
        lines += [f"row {number}, {row.step.title}: {fault}" for fault in row.faults]
    return "\n".join(lines)


def _summary(rows: Sequence[Row], seconds: float) -> dict[str, Any]:
    right = sum(row.right for row in rows)
    return {"requests": len(rows), "right": right, "wrong": len(rows) - right, "seconds": round(seconds, 2)}


def _record(row: Row) -> dict[str, Any]:
    step, observed = row.step, row.observed
    return {
        "title": step.title,
        "caller": step.caller,
        "method": step.method,
        "path": step.path,
        "token": step.token.label if step.token else None,
        "change": step.change,
        "status": observed.status,
        "decision": observed.decision or None,
        "reason": observed.reason or None,
        "policy": observed.policy or None,
        "source": observed.source or None,
        "detail": observed.detail or None,
        "details": observed.details,
        "milliseconds": observed.milliseconds,
        "tries": observed.tries,
        "right": row.right,
        "faults": list(row.faults),
    }


def _cells(row: Row) -> tuple[str, ...]:
    step, observed = row.step, row.observed
    return (
        "ok" if row.right else "WRONG",
        _CALLERS[step.caller],
        f"{step.method} {step.path}",
        step.token.label if step.token else "-",
        str(observed.status),
        observed.decision or "none",
        _BREAK.join(_because(row)),
        step.title,
    )


def _because(row: Row) -> tuple[str, ...]:
    """The reason and the line of the rule, then the rule; without a decision, Envoy's own reason."""
    observed = row.observed
    reason = observed.reason or observed.details
    where = f"{reason} ({observed.source})" if observed.source else reason
    return tuple(part for part in (where, observed.policy or observed.detail) if part)


def print_on_terminal(rows: Sequence[Row]) -> None:
    """A table in the terminal's width, with colours unless NO_COLOR is set."""
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415 (an extra, and 50 ms that only a terminal pays for)
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(header_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in _COLUMNS:
        justify: Literal["left", "right"] = "right" if name in {"#", "HTTP"} else "left"
        table.add_column(name, justify=justify, overflow="fold", max_width=_WIDEST.get(name))
    for number, row in enumerate(rows, 1):
        _, caller, request, token, status, decision, _, title = _cells(row)
        first, *rest = _because(row)
        colour = {"ALLOW": "green", "DENY": "red"}.get(decision, "yellow")
        mark = Text(str(number)) if row.right else Text(f"✗ {number}", style="bold red")
        shown = Text.assemble(request, "\n", (title, "dim"))
        because = Text.assemble(first, *(("\n" + line, "dim") for line in rest))
        table.add_row(mark, caller, shown, token, status, Text(decision, style=f"bold {colour}"), because)
    Console().print(table)
