"""What handshakes are made with by now."""

from countersign.certificates.served import Served
from countersign.core.spiffe import SpiffeId


class Handshakes:
    """One event loop puts certificates here; the handshakes of any thread take them. ``callers`` may ask."""

    def __init__(self, callers: frozenset[SpiffeId]) -> None:
        self.callers = callers
        self._served: Served | None = None

    def put(self, served: Served) -> None:
        """Make every handshake from now on with these. Connections that are open stay as they are."""
        self._served = served

    @property
    def served(self) -> Served:
        """The latest. Raise LookupError before there are any."""
        if self._served is None:
            raise LookupError("no certificate has been put here")
        return self._served
