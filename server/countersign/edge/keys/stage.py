"""How far a fetch has come, for the operator who reads that its time was up.

Times are left out: a text that differs each time would be news each time, and each is logged.
"""

from collections.abc import Mapping
from typing import Any, Final

_OF_EVENTS: Final = {  # the ends of what httpcore's trace extension calls its steps
    "start_tls.started": "in the TLS handshake",
    "receive_response_headers.started": "waiting for the answer",
    "receive_response_body.started": "reading the answer's body",
}


class Stage:
    """What a fetch is at, in ``text``: words that go on from "still"."""

    def __init__(self) -> None:
        self.text = "preparing"

    async def follow(self, event: str, _: Mapping[str, Any]) -> None:
        """What httpcore calls at each of its steps, as a request's extension ``trace``."""
        self.text = _OF_EVENTS.get(event.partition(".")[2], self.text)
