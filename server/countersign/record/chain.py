"""The chain: each line of a log names the one before it, so that none can be changed, taken out or moved unseen.

A line is a JSON object that ends in ``"chain":{"id":I,"seq":N,"prev":P}``, then ``"signature":S`` where a key signs it,
then ``"hash":H``. ``seq`` counts the lines of chain ``id`` from 0, ``hash`` is the SHA-256 of every octet before
``,"hash":`` and ``prev`` the hash of the line before, zeros for the first. A signature is Ed25519's, of `CONTEXT` and
the SHA-256 of every octet before ``,"signature":``. All of them are in base16.

Beside records there are events. ``start``: a process begins to write, in a new chain or at the end of one that it has
found. ``checkpoint``: all until here is signed. ``stop``: the process ended as it should. ``lost``: so many decisions
were not recorded, because the queue was full; that one is written without a chain too.

Who has the file but not the key can compute a whole new chain, except that its events are not signed.
"""

import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Final

from countersign.record.entry import Record
from countersign.record.text import line_of

CONTEXT: Final = b"countersign decision log, version 1\n"
FIRST: Final = "0" * 64  # ``prev`` of the first line of a chain

_SEALED: Final = re.compile(
    rb'(?P<hashed>(?P<signed>\{.*"chain":\{"id":"(?P<id>[0-9a-f]{16})","seq":(?P<seq>0|[1-9][0-9]{0,17}),'
    rb'"prev":"(?P<prev>[0-9a-f]{64})"\})(?:,"signature":"(?P<signature>[0-9a-f]{128})")?)'
    rb',"hash":"(?P<hash>[0-9a-f]{64})"\}',
)


class Event(StrEnum):
    """What a line is that is no record of a decision."""

    START = "start"
    CHECKPOINT = "checkpoint"
    STOP = "stop"
    LOST = "lost"


Sign = Callable[[bytes], bytes]  # octets to their signature


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """What a line says of its place. ``intact``: its octets are those that were hashed."""

    id: str
    seq: int
    prev: str
    hash: str
    signature: str
    signed: bytes
    intact: bool


def read_link(line: bytes) -> Link | None:
    """The place of a line (without its end) in its chain; None if it says none."""
    found = _SEALED.fullmatch(line)
    if found is None:
        return None
    return Link(
        id=found["id"].decode(),
        seq=int(found["seq"]),
        prev=found["prev"].decode(),
        hash=found["hash"].decode(),
        signature=(found["signature"] or b"").decode(),
        signed=found["signed"],
        intact=sha256(found["hashed"]).hexdigest().encode() == found["hash"],
    )


def signed_octets(signed: bytes) -> bytes:
    """What a signature is of."""
    return CONTEXT + sha256(signed).digest()


class Chain:
    """Seals lines, one after the other. ``after`` is the last line of a log that is continued."""

    def __init__(self, sign: Sign | None = None, after: Link | None = None) -> None:
        self._sign = sign
        self._id = secrets.token_hex(8) if after is None else after.id
        self._seq = 0 if after is None else after.seq + 1
        self._prev = FIRST if after is None else after.hash

    def seal(self, record: Record, *, signed: bool = False) -> bytes:
        """A record as a line, without its end. With ``signed``, it is signed, if there is a key."""
        line = line_of({**record, "chain": {"id": self._id, "seq": self._seq, "prev": self._prev}})[:-1]
        if signed and self._sign is not None:
            line += b',"signature":"%s"' % self._sign(signed_octets(line)).hex().encode()
        self._prev = sha256(line).hexdigest()
        self._seq += 1
        return b'%s,"hash":"%s"}' % (line, self._prev.encode())
