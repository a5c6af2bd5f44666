"""Verified tokens, so that the next request with the same token costs a look instead of a signature.

A hit is what `verify` would say now: the times are compared with the clock at each use, and a proof counts only while
the rule is the very one that it was made for and the key that verified is still one that the rule's keys would try.
Only proofs are kept, never refusals: a key may arrive at any time, and garbage must not take the place of tokens.

Bounded by entries and by octets, in two queues (S3-FIFO without its ghosts): what is used again before it has passed
the queue of newcomers, a quarter of the whole, goes to the queue of those that stay. A flood of tokens that are used
once therefore passes by the ones in use. Every operation takes constant time.

Several threads may use one cache, and none ever waits for another. Looking up reads one item of a dictionary and
follows links, and what it finds there proves itself: rule, posture, times and key are asked at each use, so it
matters to no answer that another thread has just evicted or replaced it. All it writes are single attributes, `_keys`
only after the key was found in that very key set. Whatever changes queues, links and dictionary has taken the one
item of `_turn`, and of two threads that want to keep a token at the same moment one goes without.

No token is in it, only its SHA-256: whoever reads this memory cannot present what is kept here.
"""

import marshal
from collections import deque
from collections.abc import Iterator
from hashlib import sha256
from math import inf
from types import MappingProxyType
from typing import Final
from weakref import ref

from countersign.core.identity import VerifiedToken
from countersign.core.jwt_rule import JwtRule
from countersign.core.posture import Posture
from countersign.tokens.jose import MAX_LENGTH, Head, UnverifiedToken
from countersign.tokens.keys import KeySet
from countersign.tokens.output import Written
from countersign.tokens.verify import LEEWAY

ENTRIES: Final = 10_000
OCTETS_PER_ENTRY: Final = 4 * 1024  # on average, by an estimate that is two or three times what most tokens take
MAX_OCTETS: Final = 16 * 1024  # of one entry; larger ones are verified each time
_MAX_RULES: Final = 4  # that keep a proof of one token
_MAX_HEADS: Final = 64
_MAX_HEAD: Final = 512  # characters
_BASE: Final = 512  # octets of an entry without its texts
_TEXT: Final = 128  # of a text and what refers to it, beyond its characters
_CHANCES: Final = 64  # entries in use that are passed over to find one that may go


class Proof:
    """What a token is worth under one rule: the identity, and the headers that the rule makes of it."""

    __slots__ = ("headers", "token")

    def __init__(self, token: VerifiedToken, headers: Written) -> None:
        self.token = token
        self.headers = headers


class _Held:
    """A proof, packed, and what it rests on. Rules and key sets are referred to weakly: a cache keeps none alive.

    Claims are kept as octets: far fewer than their objects take, and a microsecond to read again.
    """

    __slots__ = (
        "_algorithm",
        "_ends",
        "_headers",
        "_key",
        "_keys",
        "_kid",
        "_said",
        "_starts",
        "issuer",
        "other",
        "posture",
        "rule",
    )

    def __init__(self, proof: Proof, token: UnverifiedToken, rule: JwtRule, keys: KeySet, posture: Posture) -> None:
        verified, payload = proof.token, token.payload
        self.other: _Held | None = None  # changed by `Known.hold` only
        self._said = marshal.dumps((dict(verified.claims), verified.subject))
        self._key = verified.key
        self._headers = proof.headers
        self.issuer = verified.issuer
        self.rule = ref(rule)
        self.posture = posture
        self._keys = ref(keys)
        self._algorithm = token.head.algorithm
        self._kid = token.head.kid
        starts = int(payload.get("nbf", 0))
        self._starts = max(starts, int(payload.get("iat", 0))) if posture is Posture.STRICT else starts
        self._ends = verified.expires_at or inf  # an exp of 0 is none, as in `verify`

    def and_others(self) -> Iterator["_Held"]:
        """Itself, and those of the same token for other rules."""
        each: _Held | None = self
        while each is not None:
            yield each
            each = each.other

    @property
    def octets(self) -> int:
        """What it takes in memory at most. Measured on CPython 3.11, 64 bits."""
        return _BASE + len(self._said) + sum(_TEXT + len(value) for _, value in self._headers)

    def proof(self) -> Proof:
        """What was packed."""
        claims, subject = marshal.loads(self._said)  # noqa: S302 (octets that this process has written)
        token = VerifiedToken(
            claims=MappingProxyType(claims),
            issuer=self.issuer,
            subject=subject,
            expires_at=None if self._ends == inf else self._ends,
            key=self._key,
        )
        return Proof(token, self._headers)

    def holds(self, keys: KeySet, seconds: int) -> bool:
        """Whether `verify` would come to the same with these keys, at this time."""
        if not self._starts - LEEWAY <= seconds <= self._ends + LEEWAY:
            return False
        if self._keys() is not keys:
            if all(key.thumbprint != self._key for key in keys.eligible(self._algorithm, self._kid)):
                return False
            self._keys = ref(keys)
        return True


class _Queue:
    """Entries from the oldest to the newest, and what they weigh."""

    __slots__ = ("entries", "octets")

    def __init__(self) -> None:
        self.entries: deque[Known] = deque()
        self.octets = 0

    def put(self, known: "Known") -> None:
        known.queue = self
        self.entries.append(known)
        self.octets += known.octets

    def take(self) -> "Known":
        known = self.entries.popleft()
        self.octets -= known.octets
        return known


class Known:
    """A token that has verified under some rule."""

    __slots__ = ("_held", "digest", "queue", "used")

    queue: _Queue

    def __init__(self, digest: bytes, held: _Held) -> None:
        self.digest = digest
        self.used = False
        self._held = held

    @property
    def issuer(self) -> str:
        """Its ``iss``, empty if it has none."""
        return self._held.issuer

    @property
    def octets(self) -> int:
        """What it takes in memory at most."""
        return sum(held.octets for held in self._held.and_others())

    def proof(self, rule: JwtRule, keys: KeySet, now: float, posture: Posture) -> Proof | None:
        """The proof for this rule, if it would be given now; ``now`` in seconds since the epoch."""
        for held in self._held.and_others():
            if held.rule() is rule and held.posture is posture:
                if not held.holds(keys, int(now)):
                    return None
                self.used = True
                return held.proof()
        return None

    def hold(self, new: _Held) -> None:
        """Hold this proof beside those for other rules, or instead of the last one for its own."""
        rule, posture, before = new.rule(), new.posture, self.octets
        last, count = new, 1
        for each in self._held.and_others():
            if count < _MAX_RULES and each.rule() and (each.rule() is not rule or each.posture != posture):
                last.other, last, count = each, each, count + 1
        last.other = None
        self._held = new
        self.queue.octets += self.octets - before


class TokenCache:
    """At most so many tokens and so many octets (by an estimate from above). The counters are for operators."""

    def __init__(self, entries: int = ENTRIES, octets: int | None = None) -> None:
        self.hits = self.misses = self.evictions = 0
        self._max_entries = entries
        self._max_octets = entries * OCTETS_PER_ENTRY if octets is None else octets
        self._known: dict[bytes, Known] = {}
        self._newcomers = _Queue()
        self._staying = _Queue()
        self.heads: dict[bytes, Head] = {}  # of verified tokens, so that the next one's need not be read
        self._turn: list[None] = [None]  # whoever takes it out may change the cache

    def __len__(self) -> int:
        return len(self._known)

    @property
    def octets(self) -> int:
        """What all entries take at most."""
        return self._newcomers.octets + self._staying.octets

    def find(self, digest: bytes) -> Known | None:
        """What is known of the token with this digest, which need not hold any more."""
        return self._known.get(digest)

    def keep(
        self, digest: bytes, proof: Proof, token: UnverifiedToken, rule: JwtRule, keys: KeySet, posture: Posture
    ) -> None:
        """Keep a proof that `verify` has just given for this token by this rule, key set and posture."""
        held = _Held(proof, token, rule, keys, posture)
        if held.octets > MAX_OCTETS:
            return
        try:
            self._turn.pop()
        except IndexError:  # another thread is here
            return
        try:
            self._put(digest, held)
            if self.heads.get(token.head.segment) is not token.head and len(token.head.segment) <= _MAX_HEAD:
                if len(self.heads) >= _MAX_HEADS:
                    self.heads.clear()
                self.heads[token.head.segment] = token.head
        finally:
            self._turn.append(None)

    def _put(self, digest: bytes, held: _Held) -> None:
        known = self._known.get(digest)
        if known is None:
            known = Known(digest, held)
            self._newcomers.put(known)
            self._known[digest] = known  # last: now others can see it
        else:
            known.hold(held)
        while len(self._known) > self._max_entries or self.octets > self._max_octets:
            self._evict()

    def _evict(self) -> None:
        """Let the oldest go that was not used since it was last looked at; of so many used ones, the next."""
        known = self._oldest()
        for _ in range(_CHANCES):
            if not known.used:
                break
            known.used = False
            self._staying.put(known)
            known = self._oldest()
        del self._known[known.digest]
        self.evictions += 1

    def _oldest(self) -> Known:
        new = self._newcomers
        crowded = len(new.entries) * 4 > self._max_entries or new.octets * 4 > self._max_octets
        return (new if crowded or not self._staying.entries else self._staying).take()


def digest(token: str) -> bytes:
    """What a token is kept by: the whole of it, its signature included. Empty for a text that cannot be a token."""
    return sha256(token.encode()).digest() if len(token) <= MAX_LENGTH and token.isascii() else b""
