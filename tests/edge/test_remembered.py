"""Answers given before: right for as long as they stand, bounded, without tokens, from any thread."""

import json
import random
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Final

import pytest
from countersign import authorize as pipeline
from countersign.core.decision import Allow, AllowReason, Mutations
from countersign.core.jwt_rule import KeySource, RemoteKeys
from countersign.edge import check, remembered
from countersign.edge.check import Checker
from countersign.edge.remembered import Answer, Memory
from countersign.judgement import Judgement, Step
from countersign.mesh.issuer import Issuer
from countersign.snapshot import Snapshot
from countersign.tokens.cache import TokenCache
from countersign.tokens.keys import KeySet
from countersign.wire import auth_pb2 as pb
from countersign.wire import outline
from countersign.wire.outline import Asking

from tests.edge.serving import reason, request, snapshot

ISSUER: Final = "https://issuer.test"
REMOTE: Final = RemoteKeys("http://127.0.0.1:1/jwks.json", 5.0)
USERS: Final = """\
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: users, namespace: apps}
spec:
  jwtRules: [{issuer: "https://issuer.test", jwksUri: "http://127.0.0.1:1/jwks.json"}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: users, namespace: apps}
spec:
  rules: [{from: [{source: {requestPrincipals: ["https://issuer.test/*"]}}]}]
"""
ALLOWED: Final = Judgement(
    step=Step.POLICIES,
    decision=Allow(reason=AllowReason.RULE_MATCHED, policy=None, mutations=Mutations(), generation=1),
    until=200.0,
)
ANSWER: Final = Answer(since=100.0, until=200.0, allows=True, octets=b"x", judged=ALLOWED)


def _fail(error: Exception) -> None:
    raise error


class Counted:
    """A checker that counts its decisions. ``snapshot`` is the test's to change, and so is the clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, current: Snapshot) -> None:
        self.snapshot = current
        self.decisions = 0
        self.now = time.time()
        self.checker = Checker(lambda: self.snapshot, lambda _: None, _fail)
        original = pipeline.authorize

        def counted(*arguments: Any, **named: Any) -> Any:
            self.decisions += 1
            return original(*arguments, **named)

        monkeypatch.setattr(check, "authorize", counted)
        monkeypatch.setattr(time, "time", lambda: self.now)

    def reason(self, message: pb.CheckRequest) -> str:
        answer = self.checker.answer(message.SerializeToString(), None)
        assert isinstance(answer, bytes)
        return reason(pb.CheckResponse.FromString(answer))


def test_a_question_is_decided_once_and_what_nobody_reads_makes_it_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(monkeypatch, snapshot())
    for turn in range(3):
        message = request(headers={"x-request-id": str(turn)})
        message.attributes.source.address.socket_address.port_value = 1000 + turn
        message.attributes.request.http.id = str(turn)
        message.attributes.request.time.FromSeconds(turn)
        assert counted.reason(message) == "allow-rule-matched"
    assert counted.decisions == 1
    assert counted.reason(request(method="PUT")) == "no-allow-rule-matched"
    assert counted.decisions == 2


def test_another_snapshot_is_asked_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(monkeypatch, snapshot())
    assert counted.reason(request()) == "allow-rule-matched"
    counted.snapshot = snapshot(USERS)
    assert counted.reason(request()) == "no-allow-rule-matched"
    counted.snapshot = replace(counted.snapshot, policies=None)
    assert counted.reason(request()) == "no-policies-loaded"


def test_an_answer_ends_with_the_token_and_refusals_are_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    issuer = Issuer(ISSUER)
    counted = Counted(monkeypatch, snapshot(USERS, {REMOTE: KeySet.parse(json.dumps(issuer.jwks()))}))
    token = issuer.sign({"iss": ISSUER, "sub": "alice", "exp": int(counted.now) + 100})
    message = request(headers={"authorization": f"Bearer {token}"})

    assert [counted.reason(message) for _ in range(3)] == ["allow-rule-matched"] * 3
    assert counted.decisions == 1
    counted.now += 101  # within the leeway, and not from memory
    assert counted.reason(message) == "allow-rule-matched"
    assert counted.decisions == 2
    counted.now += 100
    assert [counted.reason(message) for _ in range(2)] == ["token-expired"] * 2
    assert counted.decisions == 4
    counted.now -= 300  # a clock that was set back: before the answer was given, nobody knows
    assert counted.reason(message) == "allow-rule-matched"
    assert counted.decisions == 5


def test_a_memory_is_bounded_and_holds_digests_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "MAX_ANSWERS", 4)
    memory = Memory(snapshot())
    digests = []
    for n in range(100):
        message = request(path=f"/{n}", headers={"authorization": "Bearer a.b.c"})
        question = memory.question(message.SerializeToString())
        assert question is not None
        digests.append(question.digest)
        memory.keep(question.digest, ANSWER)
        assert memory.find(digests[0], 100.0) is not None  # in use: it stays
        assert len(memory) <= 8
    assert memory.find(digests[-1], 201.0) is None
    assert memory.find(digests[-1], 99.0) is None
    assert memory.find(digests[50], 100.0) is None
    assert {len(digest) for digest in (*memory._newer, *memory._older)} == {32}


def test_long_answers_and_those_of_unknown_duration_are_not_kept() -> None:
    memory = Memory(snapshot())
    memory.keep(b"a", ANSWER._replace(octets=b"x" * 3000))
    memory.keep(b"b", ANSWER._replace(until=0.0))
    assert len(memory) == 0
    memory.keep(b"c", ANSWER)
    assert len(memory) == 1


def _changed(message: pb.CheckRequest, path: str) -> pb.CheckRequest:
    """The same message but for one field that a decision may rest on."""
    changed = pb.CheckRequest()
    changed.CopyFrom(message)
    attributes = changed.attributes
    match path:
        case "http.headers":
            attributes.request.http.headers["x-read"] = "b"
        case "sni":
            attributes.tls_session.sni = "b"
        case "no tls_session":
            attributes.ClearField("tls_session")
        case "context_extensions":
            attributes.context_extensions["a"] = "b"
        case "metadata":
            attributes.metadata_context.filter_metadata["a"].fields["b"].string_value = "c"
        case "destination.labels":
            attributes.destination.labels["a"] = "b"
        case "destination.port":
            attributes.destination.address.socket_address.port_value = 9
        case _:
            *owners, name = path.split(".")
            owner: Any = attributes
            for each in owners:
                owner = getattr(owner, each)
            setattr(owner, name, "GET/b")
    return changed


FIELDS: Final = (
    *("request.http.method", "request.http.path", "request.http.host", "request.http.scheme"),
    *("http.headers", "sni", "no tls_session", "context_extensions", "metadata"),
    *("source.principal", "source.certificate", "source.address.socket_address.address"),
    *("destination.principal", "destination.address.socket_address.address", "destination.port", "destination.labels"),
)


@pytest.mark.parametrize("path", FIELDS)
def test_whatever_a_decision_may_rest_on_makes_another_question(path: str) -> None:
    asking = Asking({"x-read"})
    message = request(headers={"x-read": "a"})
    message.attributes.tls_session.sni = ""
    assert asking.ask(message.SerializeToString()) == asking.ask(message.SerializeToString())
    assert asking.ask(_changed(message, path).SerializeToString()) != asking.ask(message.SerializeToString())


def _raw(message: pb.CheckRequest) -> pb.CheckRequest:
    """The same message with its header lines apart, as `encode_raw_headers` sends them."""
    http = message.attributes.request.http
    lines = dict(http.headers)
    http.ClearField("headers")
    for name, value in lines.items():
        http.header_map.headers.add(key=name, raw_value=value.encode())
    return message


@pytest.mark.parametrize("joined", [True, False])
@pytest.mark.parametrize("length", [1, 2, 3, 4, 127, 128, 255, 256, 1000])
@pytest.mark.parametrize("case", [str.lower, str.upper])
def test_a_header_with_a_name_of_any_length_is_read(case: Callable[[str], str], length: int, *, joined: bool) -> None:
    name = "n" * length
    denied = f"""\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: evil, namespace: apps}}
spec: {{action: DENY, rules: [{{when: [{{key: 'request.headers[{name}]', values: [evil]}}]}}]}}
"""
    current = snapshot(denied)
    checker = Checker(lambda: current, lambda _: None, _fail)

    def reason_for(value: str) -> str:
        message = request(headers={case(name): value, "x-other": "a"})
        answer = checker.answer((message if joined else _raw(message)).SerializeToString(), None)
        assert isinstance(answer, bytes)
        return reason(pb.CheckResponse.FromString(answer))

    for _ in range(2):  # decided, and from memory
        assert reason_for("good") == "no-allow-policy-applies"
        assert reason_for("evil") == "deny-rule-matched"


@pytest.mark.parametrize("joined", [True, False])
def test_the_facts_of_a_question_have_the_headers_that_are_read_and_refuse_others(joined: bool) -> None:
    memory = Memory(snapshot())
    message = request(headers={"x-other": "a", "Authorization": "b"})
    if not joined:
        message = _raw(message)
    question = memory.question(message.SerializeToString())
    assert question is not None
    facts = memory.facts_of(question)

    assert facts is not None
    assert facts.http is not None
    headers = facts.http.headers
    assert headers.joined is joined
    assert headers.values("authorization") == ("b",)
    assert headers.values(":path") == ("/headers",)
    assert set(headers.names()) == {":path", "authorization"}
    assert len(headers) == 2
    with pytest.raises(LookupError):
        headers.values("x-other")


def test_what_is_no_question_about_http_is_decided_each_time() -> None:
    memory = Memory(snapshot())
    tcp = request()
    tcp.attributes.request.ClearField("http")
    empty = request()
    empty.attributes.request.http.ClearField("headers")

    assert memory.question(b"\xff") is None
    assert memory.question(tcp.SerializeToString()) is None
    assert memory.question(empty.SerializeToString()) is None
    empty.attributes.request.http.headers["x-other"] = "a"  # enough for a check, too little for a question
    question = memory.question(empty.SerializeToString())
    assert question is not None
    assert memory.facts_of(question) is None
    current = snapshot()
    assert b"allow-rule-matched" in _answer(Checker(lambda: current, lambda _: None, _fail), empty)


@pytest.mark.parametrize("name", ["source", "destination", "tls_session", "metadata_context"])
def test_a_part_that_is_there_twice_is_merged_as_protobuf_does_and_no_question(name: str) -> None:
    """An encoder may split a message, and the halves are read as one: none of them may stand for the whole."""
    whole, half = request(), pb.CheckRequest()
    whole.attributes.tls_session.sni = "a"
    whole.attributes.metadata_context.filter_metadata["a"].fields["b"].string_value = "c"
    getattr(half.attributes, name).SetInParent()
    payload = whole.SerializeToString()
    current = snapshot()
    memory = Memory(current)
    assert memory.question(payload) is not None
    assert memory.question(payload + half.SerializeToString()) is None
    checker = Checker(lambda: current, lambda _: None, _fail)
    for octets in (payload, payload + half.SerializeToString()) * 2:
        answer = checker.answer(octets, None)
        assert isinstance(answer, bytes)
        assert reason(pb.CheckResponse.FromString(answer)) == "allow-rule-matched"


def test_a_line_of_nothing_is_a_header_that_nobody_reads() -> None:
    message = _raw(request())
    message.attributes.request.http.header_map.headers.add()
    assert Memory(snapshot()).question(message.SerializeToString()) is None
    current = snapshot()
    assert b"allow-rule-matched" in _answer(Checker(lambda: current, lambda _: None, _fail), message)


def test_what_is_kept_of_peers_and_names_is_bounded_and_right_when_it_was_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outline, "_KEPT", 3)
    asking = Asking({"x-read"})
    seen = set()
    for number in range(20):
        message = request(principal=f"spiffe://td/ns/{number}/sa/a", headers={f"x-{number}": "a", "X-Read": "b"})
        message.attributes.destination.principal = f"spiffe://td/ns/{number}/sa/b"
        ask = asking.ask(message.SerializeToString())
        assert ask == Asking({"x-read"}).ask(message.SerializeToString())
        assert ask is not None
        seen.add(ask)
        assert max(len(asking._heads), len(asking._sources), len(asking._destinations)) <= 3
    assert len(seen) == 20


def _answer(checker: Checker, message: pb.CheckRequest) -> bytes:
    answer = checker.answer(message.SerializeToString(), None)
    assert isinstance(answer, bytes)
    return answer


def test_two_threads_that_share_a_memory_and_a_token_cache_answer_as_one_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(remembered, "MAX_ANSWERS", 8)  # so that both are always forgetting too
    issuer = Issuer(ISSUER)
    keys: dict[KeySource, KeySet] = {REMOTE: KeySet.parse(json.dumps(issuer.jwks()))}
    shared = [replace(snapshot(USERS, keys), tokens=TokenCache(8)) for _ in range(2)]
    shared[1] = replace(shared[1], keys={REMOTE: KeySet.parse(json.dumps(Issuer(ISSUER).jwks()))})
    now = int(time.time())
    claims = [{"iss": ISSUER, "sub": f"s{n}", "exp": now + (600 if n % 3 else -600)} for n in range(12)]
    messages = [request(headers={"authorization": f"Bearer {issuer.sign(each)}"}) for each in claims]
    # The other keys are another snapshot's: there no token verifies.
    expected = [["allow-rule-matched" if n % 3 else "token-expired" for n in range(12)]]
    expected.append(["token-unknown-key" if n % 3 else "token-expired" for n in range(12)])
    checkers = [Checker(partial(shared.__getitem__, n), lambda _: None, _fail) for n in range(2)]
    wrong: list[tuple[int, int, str]] = []

    def work(seed: int) -> None:
        order = random.Random(seed)  # noqa: S311 (repeatable)
        for _ in range(1500):
            which, n = order.randrange(4) // 3, order.randrange(12)
            answer = checkers[which].answer(messages[n].SerializeToString(), 60.0)
            found = "held" if not isinstance(answer, bytes) else reason(pb.CheckResponse.FromString(answer))
            if found != expected[which][n] and not (found == "held" and which and n % 3):
                wrong.append((which, n, found))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(2)]
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # as many places as can be where one thread meets the other
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(switch)

    assert wrong == []
