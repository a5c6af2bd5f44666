"""A check that waits for keys."""

from dataclasses import dataclass

from countersign.edge.metadata import Metadata
from countersign.edge.observed import Stages
from countersign.judgement import Judgement
from countersign.snapshot import Snapshot

# A check as it came: the payload, the metadata, and in `time.monotonic` when it was taken up and until when an answer
# is of use. A bare tuple, because to make one costs no call.
Asked = tuple[bytes, Metadata, float, float]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class Ticket:
    """A check that waits for keys; it counts as long as anybody has it. ``judged`` is what was decided without them."""

    asked: Asked
    snapshot: Snapshot
    judged: Judgement
    stages: Stages
