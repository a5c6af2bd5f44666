"""What is told to whoever scrapes: of each process that answers checks, and of where policies and keys come from."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

from countersign.edge.check import Checker
from countersign.edge.kubernetes.standing import ClusterStanding
from countersign.edge.metrics.tally import Tally, Totals
from countersign.edge.tls.source import TlsStanding
from countersign.tokens.cache import TokenCache
from countersign.tokens.keyring import SourceState


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """A cache of verified tokens."""

    hits: int = 0
    misses: int = 0
    evictions: int = 0
    entries: int = 0  # now


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """The log of decisions: records written, and decisions that have none because it could not keep up."""

    records: int = 0
    lost: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """The counts of one process, or of several. ``held`` is how many checks wait for keys now."""

    totals: Totals = Totals()  # noqa: RUF009 (frozen)
    tokens: Tokens = Tokens()
    log: Logged = Logged()
    held: int = 0

    def __add__(self, other: "Counted") -> "Counted":
        ours, theirs = self.tokens, other.tokens
        tokens = {each.name: getattr(ours, each.name) + getattr(theirs, each.name) for each in fields(Tokens)}
        return Counted(
            totals=self.totals + other.totals,
            tokens=Tokens(**tokens),
            log=Logged(records=self.log.records + other.log.records, lost=self.log.lost + other.log.lost),
            held=self.held + other.held,
        )

    def past(self) -> "Counted":
        """What is left of them when the process has ended: all but what is so now."""
        return replace(self, held=0, tokens=replace(self.tokens, entries=0))


def counted(tally: Tally, checker: Checker, cache: TokenCache | None, log: Logged | None = None) -> Counted:
    """The counts of this process."""
    tokens = Tokens()
    if cache is not None:
        tokens = Tokens(hits=cache.hits, misses=cache.misses, evictions=cache.evictions, entries=len(cache))
    return Counted(totals=tally.totals(), tokens=tokens, log=log or Logged(), held=checker.held)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loads:
    """How often the policies were read. ``at`` is when it last went well (seconds since the epoch), 0 if never."""

    good: int = 0
    bad: int = 0
    at: float = 0.0
    generation: int = 0

    def failed(self) -> "Loads":
        """These, and one more that found nothing to put in force."""
        return replace(self, bad=self.bad + 1)

    def succeeded(self, generation: int, at: float) -> "Loads":
        """These, and one more that was put in force."""
        return replace(self, good=self.good + 1, at=at, generation=generation)


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Everything that is told at one moment. ``fetches`` are by source of keys and by how they ended.

    ``serving`` of so many ``processes`` answer checks. ``tls`` is None where there is none.
    """

    counted: Counted = Counted()
    loads: Loads = Loads()
    keys: tuple[SourceState, ...] = ()
    fetches: Mapping[tuple[str, ...], int] = field(default_factory=dict)
    cluster: ClusterStanding | None = None
    serving: int = 1
    processes: int = 1
    tls: TlsStanding | None = None
