"""Counting: every answer once, whoever gives it, and no more kinds than there is room for."""

import pickle
import sys
import threading
from dataclasses import replace
from typing import Any, Final

import pytest
from countersign.core.decision import Allow, AllowReason, DryRun, Mutations, PolicyRef, Reason
from countersign.core.identity import VerifiedToken
from countersign.edge.metrics import tally as tallying
from countersign.edge.metrics.state import Counted, Tokens
from countersign.edge.metrics.tally import BUCKETS, OTHER, Duration, Kind, Tally, Totals
from countersign.edge.observed import Answered, Stages
from countersign.judgement import Judgement, Step, deny

TOKEN: Final = VerifiedToken(claims={}, issuer="https://issuer.test", subject="alice", expires_at=None)


def answered(judged: Judgement, *, remembered: bool = False, stages: Stages | None = None) -> Answered:
    return Answered("", 0.0, b"", judged, remembered, stages or Stages(1e-6))


def allowed(policy: str = "ns[a]-policy[b]-rule[0]", **more: Any) -> Judgement:
    decision = Allow(
        reason=AllowReason.RULE_MATCHED,
        policy=PolicyRef(id=policy, source="p.yaml:1"),
        mutations=Mutations(),
        generation=1,
    )
    return Judgement(step=Step.POLICIES, decision=replace(decision, **more))


def denied(reason: Reason) -> Judgement:
    return Judgement(step=Step.PEER, decision=deny(reason))


def test_answers_are_counted_by_what_is_told_apart_of_them() -> None:
    tally = Tally()
    same, tried = allowed(), allowed(dry_run=DryRun(reason=Reason.DENY_RULE_MATCHED, policy=None))
    for judged in (same, same, allowed(), allowed("other"), tried, replace(same, token=TOKEN)):
        tally.count(answered(judged))
    tally.count(answered(denied(Reason.PEER_MISMATCH)))

    rule = "ns[a]-policy[b]-rule[0]"
    assert tally.totals().kinds == {
        Kind(AllowReason.RULE_MATCHED, rule): 3,
        Kind(AllowReason.RULE_MATCHED, "other"): 1,
        Kind(AllowReason.RULE_MATCHED, rule, would=Reason.DENY_RULE_MATCHED): 1,
        Kind(AllowReason.RULE_MATCHED, rule, issuer="https://issuer.test"): 1,
        Kind(Reason.PEER_MISMATCH): 1,
    }


def test_nothing_is_lost_or_counted_twice_while_many_judgements_are_worked_out() -> None:
    tally = Tally()
    for number in range(5 * tallying._PENDING + 7):
        tally.count(answered(allowed()))
        if not number % 97:
            assert sum(tally.totals().kinds.values()) == number + 1
    assert sum(tally.totals().kinds.values()) == 5 * tallying._PENDING + 7


def test_no_thread_loses_the_counts_of_another_and_whoever_reads_sees_them_grow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tallying, "_PENDING", 3)
    tally, rounds, seen = Tally(), 3000, list[int]()

    def count() -> None:
        for number in range(rounds):
            tally.count(answered(allowed(str(number % 7))))

    threads = [threading.Thread(target=count) for _ in range(4)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            seen.append(sum(tally.totals().kinds.values()))
    finally:
        sys.setswitchinterval(before)
        for thread in threads:
            thread.join()
    assert seen == sorted(seen)
    assert sum(tally.totals().kinds.values()) == 4 * rounds


def test_there_are_only_so_many_kinds_and_reasons_are_told_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tallying, "KINDS", 4)
    tally = Tally()
    for number in range(10):
        tally.count(answered(allowed(str(number))))
    tally.count(answered(replace(allowed("10"), token=TOKEN)))

    kinds = tally.totals().kinds
    assert kinds[Kind(AllowReason.RULE_MATCHED, OTHER)] == 6
    assert kinds[Kind(AllowReason.RULE_MATCHED, OTHER, issuer=OTHER)] == 1
    assert len(kinds) == 6


@pytest.mark.parametrize(
    ("seconds", "bucket"), [(0.0, 0), (0.9e-6, 0), (1.5e-6, 1), (3e-6, 2), (1e-3, 10), (0.2, 18), (5.0, BUCKETS)]
)
def test_durations_fall_into_the_bucket_above_them(seconds: float, bucket: int) -> None:
    tally = Tally()
    tally.count(answered(allowed(), remembered=True, stages=Stages(seconds)))
    total = tally.totals().durations["total"]
    assert [number for number, count in enumerate(total.buckets) if count] == [bucket]
    assert total.seconds == seconds
    assert bucket == BUCKETS or seconds < 2**bucket / 1e6


def test_an_answer_from_memory_has_no_stages_and_others_only_those_they_went_through() -> None:
    tally = Tally()
    tally.count(answered(allowed(), stages=Stages(1.0, 2.0, 0.0, 4.0)))
    tally.count(answered(allowed(), remembered=True, stages=Stages(8.0)))
    totals = tally.totals()
    spent = {stage: (sum(each.buckets), each.seconds) for stage, each in totals.durations.items()}
    assert spent == {"total": (2, 15.0), "read": (1, 1.0), "decide": (1, 2.0), "wait": (0, 0.0), "encode": (1, 4.0)}
    assert totals.remembered == 1


def test_counts_of_several_processes_are_added_and_what_is_so_now_ends_with_its_process() -> None:
    tally = Tally()
    tally.count(answered(allowed(), remembered=True))
    one = Counted(totals=tally.totals(), tokens=Tokens(hits=1, misses=2, evictions=3, entries=4), held=5)
    there = pickle.loads(pickle.dumps(one))  # noqa: S301 (our own)

    both = one.past() + there
    assert both.totals.kinds == {Kind(AllowReason.RULE_MATCHED, "ns[a]-policy[b]-rule[0]"): 2}
    assert both.totals.remembered == 2
    assert both.totals.durations["total"].buckets[:3] == (0, 2, 0)
    assert both.tokens == Tokens(hits=2, misses=4, evictions=6, entries=4)
    assert both.held == 5
    assert Totals() + Totals() == Totals(durations=dict.fromkeys(tallying.STAGES, Duration()))
