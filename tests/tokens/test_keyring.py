"""When which key set is fetched, and which keys count meanwhile."""

import pytest
from countersign.core.jwt_rule import RemoteKeys
from countersign.tokens.keyring import COOLDOWN, MAX_REFRESH, MAX_STALE, MIN_REFRESH, REFRESH, Keyring
from countersign.tokens.keys import KeySet
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.tokens.material import jwk, key_set

A, B = RemoteKeys("https://a.test/jwks"), RemoteKeys("https://b.test/jwks")
ONE, TWO = key_set(jwk("ES256")), key_set(jwk("ES256", 1))
EMPTY = KeySet(keys=())


def tracking(*sources: RemoteKeys, now: float = 0) -> Keyring:
    keyring = Keyring()
    keyring.track(sources, now)
    return keyring


def holding(keys: KeySet = ONE, *, now: float = 0, max_age: float | None = None) -> Keyring:
    keyring = tracking(A, now=now)
    keyring.started(A)
    keyring.fetched(A, keys, now, max_age)
    return keyring


def test_a_new_source_is_due_at_once_and_has_no_keys() -> None:
    keyring = tracking(A, B, now=5)

    assert keyring.due(5) == (A, B)
    assert keyring.next_due() == 5
    assert keyring.keys() == {}


def test_nothing_is_due_without_sources() -> None:
    assert tracking().due(0) == ()
    assert tracking().next_due() is None


def test_a_fetch_under_way_is_not_due_again() -> None:
    keyring = tracking(A, B)
    keyring.started(A)

    assert keyring.due(100) == (B,)
    keyring.started(B)
    assert keyring.due(100) == ()
    assert keyring.next_due() is None


def test_fetched_keys_count_and_are_refreshed_after_twenty_minutes() -> None:
    keyring = holding()

    assert keyring.keys() == {A: ONE}
    assert keyring.due(REFRESH - 1) == ()
    assert keyring.next_due() == REFRESH
    assert keyring.due(REFRESH) == (A,)


@pytest.mark.parametrize(
    ("max_age", "interval"),
    [(0, MIN_REFRESH), (59, MIN_REFRESH), (300, 300), (86400, MAX_REFRESH), (10**9, MAX_REFRESH)],
)
def test_the_issuer_chooses_the_interval_within_bounds(max_age: float, interval: float) -> None:
    assert holding(max_age=max_age).next_due() == interval


def test_jitter_comes_earlier_after_success_and_later_after_failure() -> None:
    keyring = tracking(A)
    keyring.fetched(A, ONE, 0, jitter=1)
    assert keyring.next_due() == REFRESH * 0.9
    keyring.failed(A, "x", 0, jitter=1)
    assert keyring.next_due() == 1.5


def test_a_failure_is_retried_after_one_second_then_doubled_up_to_a_minute() -> None:
    keyring = tracking(A)
    retries = []
    for _ in range(12):
        keyring.failed(A, "no", 0)
        retries.append(keyring.next_due())
    assert retries == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60, 60]

    keyring.fetched(A, ONE, 0)
    keyring.failed(A, "no", 0)
    assert keyring.due(1) == (A,)


def test_a_failure_keeps_the_last_good_set() -> None:
    keyring = holding()
    keyring.failed(A, "status 500", REFRESH)

    assert keyring.keys() == {A: ONE}
    (state,) = keyring.states()
    assert (state.source, state.keys, state.fetched_at, state.error, state.failures) == (A, ONE, 0, "status 500", 1)


def test_a_set_without_a_usable_key_never_replaces_a_good_one() -> None:
    keyring = holding()
    keyring.fetched(A, key_set({"kty": "oct"}), REFRESH)

    assert keyring.keys() == {A: ONE}
    assert keyring.states()[0].error == "no usable key among 1"
    first = tracking(A)
    first.fetched(A, EMPTY, 0)
    assert first.keys() == {}


def test_a_new_set_replaces_the_old_one_as_a_whole() -> None:
    keyring = holding()
    before = keyring.keys()
    keyring.fetched(A, TWO, REFRESH)

    assert before == {A: ONE}
    assert keyring.keys() == {A: TWO}
    assert keyring.states()[0].error == ""


def test_the_mapping_is_read_only_and_the_same_until_something_changes() -> None:
    keyring = holding()
    before = keyring.keys()
    keyring.fetched(A, key_set(jwk("ES256")), REFRESH)
    keyring.failed(A, "x", REFRESH)
    keyring.track([A], REFRESH)

    assert keyring.keys() is before
    with pytest.raises(TypeError):
        before[B] = ONE  # type: ignore[index]


def test_after_a_day_without_success_the_keys_no_longer_count() -> None:
    keyring = holding()
    keyring.failed(A, "x", MAX_STALE - 100)
    keyring.started(A)

    assert keyring.next_due() == MAX_STALE
    keyring.due(MAX_STALE - 1)
    assert keyring.keys() == {A: ONE}
    keyring.due(MAX_STALE)
    assert keyring.keys() == {}
    assert keyring.next_due() is None
    keyring.fetched(A, ONE, MAX_STALE + 1)
    assert keyring.keys() == {A: ONE}


def test_a_source_that_is_no_longer_tracked_is_forgotten() -> None:
    keyring = holding()
    keyring.track([B], 1)

    assert keyring.keys() == {}
    assert keyring.due(1) == (B,)
    keyring.started(A)
    keyring.fetched(A, ONE, 2)  # an answer that comes too late
    keyring.failed(A, "x", 2)
    assert keyring.keys() == {}
    assert [state.source for state in keyring.states()] == [B]


def test_tracking_again_keeps_what_is_known() -> None:
    keyring = holding()
    keyring.track([B, A], 1)

    assert keyring.keys() == {A: ONE}
    assert keyring.due(1) == (B,)


# An unknown key


def test_a_missed_key_makes_a_refresh_due_at_once() -> None:
    keyring = holding()

    assert keyring.key_missed(A, 1)
    assert keyring.due(1) == (A,)


def test_a_missed_key_waits_for_a_fetch_that_is_due_or_under_way() -> None:
    keyring = tracking(A)

    assert keyring.key_missed(A, 0)
    keyring.started(A)
    assert keyring.key_missed(A, 0)
    keyring.fetched(A, ONE, 1)
    assert keyring.key_missed(A, 2)  # those did not use up the cooldown


def test_missed_keys_refresh_once_per_cooldown_while_fetches_succeed() -> None:
    keyring = holding()
    assert keyring.key_missed(A, 1)
    keyring.started(A)
    keyring.fetched(A, ONE, 1.5)

    assert not keyring.key_missed(A, 2)
    assert not keyring.key_missed(A, 1 + COOLDOWN - 0.1)
    assert keyring.due(1 + COOLDOWN - 0.1) == ()
    assert keyring.key_missed(A, 1 + COOLDOWN)


def test_missed_keys_refresh_no_faster_while_fetches_fail() -> None:
    """A flood of unknown keys for an hour: one fetch a cooldown, and those that the retries make anyway."""
    keyring = holding()
    fetches = 0
    for tenth in range(36_000):
        now = tenth / 10
        keyring.key_missed(A, now)
        for source in keyring.due(now):
            keyring.started(source)
            keyring.failed(source, "no", now)
            fetches += 1

    assert 3600 / COOLDOWN - 10 <= fetches <= 3600 / COOLDOWN + 70


def test_a_missed_key_of_a_stranger_refreshes_nothing() -> None:
    keyring = holding()

    assert not keyring.key_missed(B, 1)
    assert keyring.due(1) == ()


class AnyOrder(RuleBasedStateMachine):
    """Whatever happens in whatever order: no hammering, no empty set, no set that is too old, no lost source."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.keyring = tracking(A, B)
        self.good: dict[RemoteKeys, float] = {}
        self.flying: set[RemoteKeys] = set()

    sources = st.sampled_from([A, B])

    @rule(seconds=st.floats(0, 30) | st.floats(0, 2 * MAX_STALE))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def start_what_is_due(self) -> None:
        due = self.keyring.due(self.now)
        assert self.flying.isdisjoint(due)
        for source in due:
            self.keyring.started(source)
            self.flying.add(source)
        assert self.keyring.due(self.now) == ()

    @precondition(lambda self: self.flying)
    @rule(keys=st.sampled_from([ONE, TWO, EMPTY]), max_age=st.none() | st.floats(0, 10**6), jitter=st.floats(0, 1))
    def land(self, keys: KeySet, max_age: float | None, jitter: float) -> None:
        source = self.flying.pop()
        self.keyring.fetched(source, keys, self.now, max_age, jitter=jitter)
        if keys.keys:
            self.good[source] = self.now

    @precondition(lambda self: self.flying)
    @rule(jitter=st.floats(0, 1))
    def crash(self, jitter: float) -> None:
        self.keyring.failed(self.flying.pop(), "no", self.now, jitter=jitter)

    @rule(source=sources)
    def miss(self, source: RemoteKeys) -> None:
        if self.keyring.key_missed(source, self.now):
            assert source in self.flying or source in self.keyring.due(self.now)

    @rule()
    def look(self) -> None:
        self.keyring.due(self.now)
        fresh = {source for source, at in self.good.items() if self.now - at < MAX_STALE}
        assert self.keyring.keys().keys() == fresh

    @invariant()
    def every_source_is_due_some_time_or_under_way(self) -> None:
        for state in self.keyring.states():
            assert (state.next_refresh is None) == (state.source in self.flying)

    @invariant()
    def no_set_is_empty(self) -> None:
        assert all(keys.keys for keys in self.keyring.keys().values())


TestAnyOrder = AnyOrder.TestCase
