"""How ambiguous input is read."""

from enum import StrEnum


class Posture(StrEnum):
    """``istio``: as Envoy reads it. ``strict``: the harsher of its readings, and dangerous input is refused.

    For input with one reading both decide alike; `docs/differences.md` has a row for each difference.
    """

    STRICT = "strict"
    ISTIO = "istio"
