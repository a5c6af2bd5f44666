"""Whoever observes is told of each answer once, whatever it is and however it came, with the ID that the answer has."""

import asyncio
import json
import threading
import time
from pathlib import Path
from typing import Final, NoReturn

import pytest
from countersign.core.decision import Reason
from countersign.core.jwt_rule import FetchedKeys
from countersign.edge import check
from countersign.edge.check import Checker
from countersign.edge.observed import Answered, Numbers, Stages
from countersign.edge.transport import Transport
from countersign.judgement import deny
from countersign.mesh.issuer import Issuer
from countersign.snapshot import Snapshot
from countersign.tokens.keys import KeySet
from countersign.wire import auth_pb2 as pb
from countersign.wire.codec import NUMBER_HEADER, numbered

from tests.edge.serving import TRANSPORTS, Serving, call, reason, request, snapshot
from tests.edge.test_remembered import ISSUER, REMOTE, USERS


def _fail(error: Exception) -> NoReturn:
    raise error


class Observed:
    """A checker and what its observer was told."""

    def __init__(self, current: Snapshot, *, number_allows: bool = False) -> None:
        self.snapshot = current
        self.told: list[Answered] = []
        self.faults: list[Exception] = []
        self.checker = Checker(
            lambda: self.snapshot, self._refresh, self.faults.append, self.told.append, number_allows=number_allows
        )
        self.arriving: KeySet | None = None

    def _refresh(self, _: FetchedKeys) -> "asyncio.Future[None]":
        if self.arriving is not None:
            self.snapshot = snapshot(USERS, {REMOTE: self.arriving})
        arrived = asyncio.get_running_loop().create_future()
        arrived.set_result(None)
        return arrived

    def ask(self, payload: bytes, remaining: float | None = None) -> pb.CheckResponse:
        """The answer, also of a check that was held."""
        answer = self.checker.answer(payload, remaining)
        return pb.CheckResponse.FromString(answer if isinstance(answer, bytes) else asyncio.run(answer()))


def _number(response: pb.CheckResponse) -> str:
    return response.dynamic_metadata.fields["decision_id"].string_value


def _header(response: pb.CheckResponse) -> list[str]:
    lines = response.denied_response.headers
    return [line.header.value for line in lines if line.header.key == NUMBER_HEADER]


READ: Final = request().SerializeToString()
WRITE: Final = request(method="DELETE").SerializeToString()


def test_a_decision_and_the_same_from_memory_are_told_alike_and_numbered_apart() -> None:
    observed = Observed(snapshot(), number_allows=True)
    for payload, expected in ((READ, "allow-rule-matched"), (WRITE, "no-allow-rule-matched")):
        observed.told.clear()
        responses = [observed.ask(payload) for _ in range(2)]

        assert [reason(each) for each in responses] == [expected] * 2
        assert [each.judged.decision.reason for each in observed.told] == [expected] * 2
        assert [each.payload for each in observed.told] == [payload] * 2
        assert [each.remembered for each in observed.told] == [False, True]
        numbers = [_number(each) for each in responses]
        assert numbers == [each.id for each in observed.told]
        assert len(set(numbers)) == 2


def test_only_the_denied_client_hears_the_id_and_nothing_else_of_the_answer_changes() -> None:
    observed = Observed(snapshot(), number_allows=True)
    plain = Checker(lambda: observed.snapshot, observed._refresh, _fail)
    for payload, denied in ((READ, False), (WRITE, True)):
        for _ in range(2):
            response = observed.ask(payload)
            assert _header(response) == ([observed.told[-1].id] if denied else [])
            del response.dynamic_metadata.fields["decision_id"]
            if denied:
                del response.denied_response.headers[-1]
            answer = plain.answer(payload, None)
            assert isinstance(answer, bytes)
            assert response == pb.CheckResponse.FromString(answer)


def test_allows_have_no_id_where_nobody_asked_for_it_and_denials_always_have() -> None:
    observed = Observed(snapshot())
    for _ in range(2):
        assert _number(observed.ask(READ)) == observed.told[-1].id == ""
        assert _number(observed.ask(WRITE)) == observed.told[-1].id != ""


@pytest.mark.parametrize(
    ("payload", "remaining", "expected"),
    [(READ, 0.01, "deadline-passed"), (b"\xff", None, "request-malformed"), (READ, None, "allow-rule-matched")],
)
def test_a_check_that_is_not_judged_is_told_too(payload: bytes, remaining: float | None, expected: str) -> None:
    observed = Observed(snapshot())
    assert reason(observed.ask(payload, remaining)) == expected
    assert [each.judged.decision.reason for each in observed.told] == [expected]


def test_a_check_that_is_shed_is_told_with_its_id() -> None:
    observed = Observed(snapshot())
    response = pb.CheckResponse.FromString(observed.checker.shed(READ))
    assert reason(response) == "server-overloaded"
    assert [(each.judged.decision.reason, each.id) for each in observed.told] == [
        ("server-overloaded", _number(response))
    ]
    assert _number(response) == _header(response)[0] != ""


def test_a_fault_of_ours_is_told_as_the_denial_that_it_became(monkeypatch: pytest.MonkeyPatch) -> None:
    observed = Observed(snapshot())
    with monkeypatch.context() as broken:
        broken.setattr(check, "authorize", lambda *_, **__: 1 // 0)
        assert reason(observed.ask(READ)) == "internal-error"
    assert [each.judged.decision.reason for each in observed.told] == ["internal-error"]
    assert [type(each) for each in observed.faults] == [ZeroDivisionError]
    assert reason(observed.ask(READ)) == "allow-rule-matched"


def test_a_held_check_is_told_once_with_the_time_it_waited() -> None:
    issuer = Issuer(ISSUER)
    token = issuer.sign({"iss": ISSUER, "sub": "alice", "exp": int(time.time()) + 600})
    payload = request(headers={"authorization": f"Bearer {token}"}).SerializeToString()
    observed = Observed(snapshot(USERS))
    observed.arriving = KeySet.parse(json.dumps(issuer.jwks()))

    answer = observed.checker.answer(payload, None)
    assert not isinstance(answer, bytes)
    assert observed.checker.held == 1
    assert observed.told == []
    assert reason(pb.CheckResponse.FromString(asyncio.run(answer()))) == "allow-rule-matched"
    assert observed.checker.held == 0
    assert [each.judged.decision.reason for each in observed.told] == ["allow-rule-matched"]
    assert all(seconds > 0 for seconds in observed.told[0].stages)


def test_the_stages_of_a_check_are_the_time_it_took(monkeypatch: pytest.MonkeyPatch) -> None:
    observed = Observed(snapshot())
    clock = [100.0]

    def tick() -> float:
        clock[0] += 0.001
        return clock[0]

    monkeypatch.setattr(time, "monotonic", tick)
    for remembered in (False, True):
        before = clock[0]
        observed.ask(READ)
        stages = observed.told[-1].stages
        assert sum(stages) == pytest.approx(clock[0] - before - 0.001)
        assert (stages.decide > 0, stages.encode > 0) == (not remembered, not remembered)
    assert Stages(0.5) == (0.5, 0.0, 0.0, 0.0)


def test_what_nobody_could_be_told_of_is_not_let_through() -> None:
    def broken(_: Answered) -> NoReturn:
        raise OSError

    current, faults = snapshot(), list[Exception]()
    checker = Checker(lambda: current, lambda _: None, faults.append, broken)
    for payload in (READ, READ, WRITE):
        answer = checker.answer(payload, None)
        assert isinstance(answer, bytes)
        assert reason(pb.CheckResponse.FromString(answer)) == "internal-error"
    assert [type(each) for each in faults] == [OSError] * 3
    assert reason(Observed(current).ask(READ)) == "allow-rule-matched"


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_every_check_over_a_transport_is_told_once(tmp_path: Path, transport: Transport) -> None:
    current, told = snapshot(), list[Answered]()
    with Serving(tmp_path, lambda: current, transport=transport, observe=told.append) as serving:
        responses = [serving.call(payload) for payload in (READ, WRITE, READ, WRITE)]

    assert [_number(each) for each in responses] == [each.id for each in told]
    assert [each.judged.decision.reason for each in told] == [reason(each) for each in responses]
    assert [each.remembered for each in told] == [False, False, True, True]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_what_a_caller_says_of_its_call_is_told_where_somebody_asked_for_it(
    tmp_path: Path, transport: Transport
) -> None:
    sent = (("traceparent", "00-1"), ("other", "a"), ("other", "b"), ("octets-bin", b"\x00\xff"))
    current = snapshot()
    for wanted, expected in ((True, sent), (False, ())):
        told: list[Answered] = []
        with Serving(tmp_path, lambda: current, transport=transport, observe=told.append, metadata=wanted) as serving:
            for payload in (READ, READ, WRITE):
                call(serving.address, payload, metadata=sent)

        assert len(told) == 3
        for each in told:
            assert tuple((name, value) for name, value in each.metadata if name in dict(sent)) == expected
            assert wanted or each.metadata == ()


def test_a_check_that_is_shed_refused_or_held_is_told_with_what_its_caller_said() -> None:
    issuer = Issuer(ISSUER)
    token = issuer.sign({"iss": ISSUER, "sub": "alice", "exp": int(time.time()) + 600})
    observed = Observed(snapshot(USERS))
    said = (("traceparent", "00-1"),)

    observed.checker.shed(READ, said)
    observed.checker.refuse(READ, deny(Reason.CALLER_NOT_ALLOWED), said)
    held = observed.checker.answer(
        request(headers={"authorization": f"Bearer {token}"}).SerializeToString(), None, said
    )
    assert not isinstance(held, bytes)
    asyncio.run(held())

    assert [each.metadata for each in observed.told] == [said] * 3


def test_ids_of_many_threads_and_of_two_processes_are_all_different() -> None:
    numbers, found = Numbers(), list[str]()
    threads = [threading.Thread(target=lambda: found.extend(numbers() for _ in range(2000))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found.append(Numbers()())
    assert len(set(found)) == len(found)
    assert {len(each) for each in found} == {28}


def test_an_id_for_which_there_is_no_room_is_refused() -> None:
    with pytest.raises(ValueError, match="an ID has 28 characters, not 3"):
        numbered(b"", "abc", allows=True)
    with pytest.raises(ValueError, match="ascii"):
        numbered(b"", "\N{SNOWMAN}" * 28, allows=True)
    assert numbered(b"", "a" * 28, allows=True)
