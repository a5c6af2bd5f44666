"""Answers given before, for as long as the same question has the same answer.

A memory belongs to one snapshot, policies and keys and all, and ends with it. What is looked for is the digest of a
question (`outline.Ask`), which has everything that its decision rests on but the time; and the time counts only for
tokens, so an answer is good from when it was given until the first of its tokens expires. Refused tokens are not
remembered: a key may come at any time. No token and no header is in it, only digests and what was decided.

Several threads may use one memory: each looks up and sets single items of dictionaries, items are immutable, and what
two threads put there for one digest is equal. At worst, an answer is forgotten and found again.
"""

import marshal
from hashlib import sha256
from typing import Final, NamedTuple

from countersign.core.facts import RequestFacts
from countersign.judgement import Judgement
from countersign.snapshot import Snapshot, headers_read
from countersign.wire.outline import Ask, Asking, facts_of

MAX_ANSWERS: Final = 4096  # of each of two halves
_MAX_OCTETS: Final = 2048  # of one answer


class Answer(NamedTuple):
    """A serialized CheckResponse, from when until when it is right (seconds since the epoch), and how it came."""

    since: float
    until: float
    allows: bool
    octets: bytes
    judged: Judgement


class Question(NamedTuple):
    """What a check asks, and the name that the answer to it has in a memory."""

    ask: Ask
    digest: bytes


class Memory:
    """What was answered by one snapshot: the newer half, and the older one until the newer is full."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        policies = snapshot.policies
        self._asking = Asking(() if policies is None else headers_read(snapshot.mesh, policies))
        self._newer: dict[bytes, Answer] = {}
        self._older: dict[bytes, Answer] = {}

    def __len__(self) -> int:
        return len(self._newer) + len(self._older)

    def question(self, payload: bytes) -> Question | None:
        """The question in a serialized CheckRequest; None if the answer to it is not to be remembered."""
        ask = self._asking.ask(payload)
        # Version 0 of marshal writes of each value its type, length and content, and nothing else.
        return None if ask is None else Question(ask, sha256(marshal.dumps(ask, 0)).digest())

    def facts_of(self, question: Question) -> RequestFacts | None:
        """What the decision may rest on, and nothing else; None where that is not enough to be judged."""
        return facts_of(question.ask, self._asking.names)

    def find(self, digest: bytes, now: float) -> Answer | None:
        """The answer that was given before, if it is right now (seconds since the epoch)."""
        answer = self._newer.get(digest)
        if answer is None:
            answer = self._older.get(digest)
            if answer is None:
                return None
            self._put(digest, answer)
        return answer if answer.since <= now <= answer.until else None

    def keep(self, digest: bytes, answer: Answer) -> None:
        """Keep an answer, unless it is right for no longer than now."""
        if answer.since <= answer.until and len(answer.octets) <= _MAX_OCTETS:
            self._put(digest, answer)

    def _put(self, digest: bytes, answer: Answer) -> None:
        newer = self._newer
        if len(newer) >= MAX_ANSWERS:
            self._older, self._newer = newer, {}
            newer = self._newer
        newer[digest] = answer
