"""A cluster that policies come from, as others see it: what it says, and how it is with it."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from countersign.edge.kubernetes.address import Cluster
from countersign.edge.readiness import Check


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterStanding:
    """``problem``: why changes do not come; empty while every collection is watched.

    ``contact`` is when the API server last said something of use about the collection that has been silent longest
    (seconds since the epoch), 0 if never. ``lists`` and ``failures`` are how often a whole list was read, and how
    often anything failed.
    """

    cluster: Cluster
    problem: str
    contact: float
    lists: int
    failures: int

    def check(self, *, has_policies: bool) -> Check:
        """For readiness: a cluster that is lost takes no traffic away from policies that are in force."""
        told = f"what {self.cluster} said last counts, changes do not come: {self.problem}"
        wrong = told if has_policies else f"{self.cluster} is waited for: {self.problem}"
        return Check("cluster", wrong if self.problem else "", counts=not has_policies)


class Watched(Protocol):
    """A cluster whose policies are followed."""

    @property
    def standing(self) -> ClusterStanding:
        """How it is with it."""

    def texts(self) -> Mapping[str, str] | None:
        """Every object's text by its name; None until all of it has been read."""

    def changes(self) -> AsyncIterator[None]:
        """Wake after changes of `texts`. Those that come together wake once."""

    async def run(self) -> None:
        """Follow it, until cancelled."""
