"""What a supervisor and a worker say to each other, over a socket pair that nobody else has.

Pickled, because both ends are one program and one user: whoever could write to it could as well write to either
process. Each message is preceded by its length, eight octets.
"""

import asyncio
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from countersign.admin.denials import Denial
from countersign.certificates.served import Served
from countersign.core.jwt_rule import FetchedKeys
from countersign.edge.metrics.state import Counted
from countersign.in_force import Policies
from countersign.policy.workload import Workload
from countersign.settings import Settings
from countersign.tokens.keys import KeySet

BEAT: Final = 1.0  # seconds between two signs of life

_LENGTH: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Logs:
    """How a process logs to its standard error."""

    level: str
    format: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """To a worker, first of all: what it is. ``settings.listen`` are its own addresses."""

    settings: Settings
    logs: Logs


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """To a worker: `Policies`, still pickled, so that what takes long to read is read beside the event loop."""

    policies: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """To a worker: every fetched key set that counts."""

    sets: Mapping[FetchedKeys, KeySet]


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """To a worker: what its handshakes are made with, private key included."""

    served: Served


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """To a worker: whether it should be asked. With the first one, it knows everything that there is to know."""

    serving: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Missed:
    """To the supervisor: a token needs a key that is not in this set."""

    source: FetchedKeys


@dataclass(frozen=True, slots=True, kw_only=True)
class Landed:
    """To a worker that missed a key: the fetch for it has ended, or (``refused``) none is permitted now."""

    source: FetchedKeys
    refused: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """To the supervisor, now and then: what the worker has counted since it began."""

    counted: Counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """To the supervisor, if it has an admin API, now and then: denials since the last time, and every workload."""

    denials: tuple[Denial, ...]
    workloads: tuple[Workload, ...]


@dataclass(frozen=True, slots=True)
class Listening:
    """To the supervisor: checks are answered."""


@dataclass(frozen=True, slots=True)
class Beat:
    """To the supervisor, every `BEAT` seconds: the worker's event loop turns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """To the supervisor: the worker cannot serve, and ends. ``usage``: because of what it was told, not of where."""

    why: str
    usage: bool


def packed(message: object) -> bytes:
    """A message as it is sent."""
    body = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    return len(body).to_bytes(_LENGTH) + body


async def received(reader: asyncio.StreamReader) -> object | None:
    """The next message; None when the other end has gone."""
    try:
        body = await reader.readexactly(int.from_bytes(await reader.readexactly(_LENGTH)))
    except (asyncio.IncompleteReadError, OSError):
        return None
    found: object = pickle.loads(body)  # noqa: S301 (see above)
    return found


def loaded(policies: Policies) -> bytes:
    """Policies as they are sent."""
    return packed(Loaded(policies=pickle.dumps(policies, pickle.HIGHEST_PROTOCOL)))


def policies_of(message: Loaded) -> Policies:
    """The policies of a message."""
    found: Policies = pickle.loads(message.policies)  # noqa: S301 (see above)
    return found
