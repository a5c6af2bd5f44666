"""How many calls a check makes, stage by stage: the same on every machine, so that a test can hold on to it."""

import gc
import sys
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

# A function of this name opens its stage, until it returns; what is in none of them is the rest.
_STAGES: Final = {
    "countersign.wire.outline.facts_of": "decode",
    "countersign.core.identity.authenticate_peer": "peer",
    "countersign.tokens.authenticate.authenticate": "token",
    "countersign.policy.compile.evaluate": "policies",
    "countersign.policy.spec.evaluate": "explain",
    "countersign.wire.codec.encode": "encode",
}
REST: Final = "rest"


def count_calls(work: Callable[[], object]) -> dict[str, int]:
    """Calls of Python and of C functions in each stage of this work."""
    counts: Counter[str] = Counter()
    open_stages: list[tuple[FrameType, str]] = []

    def profile(frame: FrameType, event: str, _: Any) -> None:  # noqa: ANN401 (the signature of sys.setprofile)
        if event == "call":
            stage = _STAGES.get(f"{frame.f_globals.get('__name__')}.{frame.f_code.co_name}")
            if stage is not None:
                open_stages.append((frame, stage))
        if event in {"call", "c_call"}:
            counts[open_stages[-1][1] if open_stages else REST] += 1
        elif event == "return" and open_stages and open_stages[-1][0] is frame:
            open_stages.pop()

    previous, collecting = sys.getprofile(), gc.isenabled()
    gc.disable()  # whoever is told of a collection would be counted
    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(previous)
        if collecting:
            gc.enable()
    return dict(counts)
