"""When which key set is fetched, and which keys count meanwhile."""

from collections.abc import Mapping
from itertools import chain, pairwise

import pytest
from countersign.core.decision import Reason
from countersign.core.jwt_rule import FetchedKeys, FileKeys, KeySource, RemoteKeys
from countersign.core.posture import Posture
from countersign.tokens.authenticate import TokenRefused, authenticate
from countersign.tokens.keyring import MAX_RETRY_AFTER, MIN_REFRESH, TOO_OLD, Keyring, KeyTimes, Origin
from countersign.tokens.keys import KeySet
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition
from hypothesis.stateful import rule as step

from tests.tokens.material import NOW, bearer, jwk, key_set, rule, sign

REFRESH, COOLDOWN, MAX_STALE = KeyTimes().refresh, KeyTimes().cooldown, KeyTimes().max_stale
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
    [(0, MIN_REFRESH), (59, MIN_REFRESH), (300, 300), (43200, 43200), (86400, MAX_STALE / 2), (10**9, MAX_STALE / 2)],
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
    (state,) = keyring.states(REFRESH + 10)
    assert (state.source, state.keys, state.origin, state.error) == (A, ONE, Origin.FETCHED, "status 500")
    assert (state.age, state.expires_in) == (REFRESH + 10, MAX_STALE - REFRESH - 10)
    assert (state.failures, state.refresh_in) == (1, -9)
    assert keyring.state(A, REFRESH + 10) == state
    assert keyring.state(B, 0) is None


def test_a_set_without_a_usable_key_never_replaces_a_good_one() -> None:
    keyring = holding()
    keyring.fetched(A, key_set({"kty": "oct"}), REFRESH)

    assert keyring.keys() == {A: ONE}
    assert keyring.states(REFRESH)[0].error == "no usable key among 1"
    first = tracking(A)
    first.fetched(A, EMPTY, 0)
    assert first.keys() == {}


def test_a_new_set_replaces_the_old_one_as_a_whole() -> None:
    keyring = holding()
    before = keyring.keys()
    keyring.fetched(A, TWO, REFRESH)

    assert before == {A: ONE}
    assert keyring.keys() == {A: TWO}
    assert keyring.states(REFRESH)[0].error == ""


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
    assert keyring.keys() == {A: TOO_OLD}
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
    assert [state.source for state in keyring.states(REFRESH)] == [B]


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


def flood(keyring: Keyring, *, seconds: float, good: bool) -> list[float]:
    """When fetches are made while a hundred keys are missed each second from 1 s on; each takes 50 ms."""
    begun: list[float] = []
    landing: float | None = None
    for hundredth in range(100, int(100 * seconds) + 100):
        now = hundredth / 100
        if landing is not None and now >= landing:
            landing = None
            if good:
                keyring.fetched(A, key_set(jwk("ES256")), now)
            else:
                keyring.failed(A, "no", now)
        keyring.key_missed(A, now)
        for source in keyring.due(now):
            keyring.started(source)
            begun.append(now)
            landing = now + 0.05
    return begun


@pytest.mark.parametrize("good", [True, False])
def test_a_flood_of_ten_thousand_made_up_keys_causes_one_fetch_a_cooldown_whatever_comes_of_it(good: bool) -> None:
    assert flood(holding(), seconds=100, good=good) == [1, 1 + COOLDOWN, 1 + 2 * COOLDOWN, 1 + 3 * COOLDOWN]


def test_a_flood_adds_one_fetch_a_cooldown_to_the_retries_of_an_outage() -> None:
    keyring = tracking(A)
    keyring.failed(A, "no", 0)
    begun = flood(keyring, seconds=600, good=False)

    for earlier, later in pairwise(begun[10:]):
        assert later - earlier >= 1
    assert len([at for at in begun if at > 300]) <= 300 / COOLDOWN + 300 / 60 + 2


def test_the_cooldown_is_a_setting() -> None:
    keyring = Keyring(KeyTimes(cooldown=5))
    keyring.track([A], 0)
    keyring.fetched(A, ONE, 0)

    assert [keyring.key_missed(A, now) for now in (1, 5.9)] == [True, True]  # due, as nobody has started it
    keyring.started(A)
    keyring.fetched(A, ONE, 2)
    assert [keyring.key_missed(A, now) for now in (3, 5.9, 6)] == [False, False, True]


def test_a_refresh_for_a_missed_key_that_fails_leaves_the_next_one_where_it_was() -> None:
    keyring = holding()
    keyring.key_missed(A, 1)
    keyring.started(A)
    keyring.failed(A, "no", 1.5)
    assert keyring.next_due() == REFRESH

    keyring.key_missed(A, REFRESH - 1)
    keyring.started(A)
    keyring.failed(A, "no", REFRESH + 5)  # meanwhile it would have been time
    assert keyring.next_due() == REFRESH + 5 + 2


def test_an_issuer_that_asks_to_be_left_alone_is_left_alone() -> None:
    keyring = holding()
    keyring.failed(A, "status 429", REFRESH, retry_after=120)

    assert keyring.next_due() == REFRESH + 120
    assert not keyring.key_missed(A, REFRESH + 119)
    assert keyring.key_missed(A, REFRESH + 120)
    keyring.started(A)
    keyring.failed(A, "status 500", REFRESH + 120)
    assert keyring.next_due() == REFRESH + 122
    keyring.failed(A, "status 429", REFRESH + 122, retry_after=0, jitter=1)
    assert keyring.next_due() == REFRESH + 128  # never sooner than it would be without
    keyring.failed(A, "status 429", REFRESH + 200, retry_after=10**9)
    assert keyring.next_due() == REFRESH + 200 + MAX_RETRY_AFTER
    keyring.fetched(A, ONE, 2 * REFRESH)
    assert keyring.key_missed(A, 2 * REFRESH + 1)


def test_a_confirmed_set_counts_from_then_on() -> None:
    keyring = holding()
    before = keyring.keys()
    keyring.failed(A, "x", REFRESH)
    keyring.confirmed(A, REFRESH + 1, 300)
    keyring.confirmed(B, REFRESH + 1)

    assert keyring.keys() is before
    (state,) = keyring.states(REFRESH + 1)
    assert (state.age, state.error, state.failures, state.refresh_in) == (0, "", 0, 300)
    keyring.due(MAX_STALE + REFRESH)
    assert keyring.keys() is before


def test_nothing_can_be_confirmed_that_is_not_there() -> None:
    keyring = tracking(A)
    keyring.started(A)
    keyring.confirmed(A, 1)

    assert keyring.keys() == {}
    assert keyring.states(1)[0].error == "unchanged, and the set has meanwhile grown too old"
    assert keyring.next_due() == 2


def test_a_restored_set_counts_until_it_is_too_old_and_is_fetched_at_once() -> None:
    keyring = tracking(A, B, now=100)
    keyring.restore(A, ONE, MAX_STALE - 50, 100)
    keyring.restore(B, ONE, MAX_STALE, 100)
    keyring.restore(RemoteKeys("https://stranger.test"), ONE, 0, 100)

    assert keyring.keys() == {A: ONE}
    assert keyring.due(100) == (A, B)
    assert keyring.states(100)[0].origin is Origin.SAVED
    keyring.failed(A, "down", 100)
    keyring.due(149)
    assert keyring.keys() == {A: ONE}
    keyring.due(150)
    assert keyring.keys() == {A: TOO_OLD}
    keyring.restore(A, ONE, 0, 150)
    assert keyring.keys() == {A: TOO_OLD}


def test_a_restored_set_replaces_nothing_and_is_never_empty() -> None:
    keyring = holding()
    keyring.restore(A, TWO, 0, 1)
    assert keyring.keys() == {A: ONE}
    other = tracking(B)
    other.restore(B, EMPTY, 0, 0)
    other.restore(B, ONE, -1, 0)
    assert other.keys() == {}


def test_a_key_that_stays_is_the_same_object_in_the_next_set() -> None:
    keyring = holding(key_set(jwk("ES256"), jwk("RS256")))
    before = keyring.keys()[A]
    keyring.fetched(A, key_set(jwk("RS256"), jwk("ES256", 1)), REFRESH)
    after = keyring.keys()[A]

    assert after.keys[0] is before.keys[1]
    assert len({*before.keys, *after.keys}) == 3


def test_a_file_is_looked_at_every_two_seconds_whatever_comes_of_it() -> None:
    file = FileKeys("/keys.json")
    keyring = Keyring()
    keyring.track([file], 0)
    keyring.fetched(file, ONE, 0, 3600)
    assert keyring.next_due() == 2
    for _ in range(20):
        keyring.failed(file, "no such file", 2)
    assert keyring.next_due() == 4
    assert keyring.keys() == {file: ONE}


# An outage


def decisions(keyring: Keyring, now: float, *tokens: str) -> list[object]:
    """What becomes of requests with these tokens at a moment of the keyring's clock."""
    keyring.due(now)
    keys: Mapping[KeySource, KeySet] = dict(chain[tuple[KeySource, KeySet]](keyring.keys().items()))
    outcomes = [
        authenticate(bearer(token), (rule(keys=A),), keys, NOW, Posture.STRICT, may_wait=False) for token in tokens
    ]
    return [outcome.reason if isinstance(outcome, TokenRefused) else "accepted" for outcome in outcomes]


def test_an_outage_of_23_hours_changes_no_decision_and_after_a_day_tokens_are_refused_for_that() -> None:
    good, made_up = sign(algorithm="ES256"), sign(algorithm="ES256", which=1)
    keyring = holding()
    usual = ["accepted", Reason.TOKEN_UNKNOWN_KEY]
    assert decisions(keyring, 0, good, made_up) == usual

    begin, now = REFRESH - 1, 0.0
    while now < begin + 23 * 3600:
        now = max(now, keyring.next_due() or 0)
        for source in keyring.due(now):
            keyring.started(source)
            keyring.failed(source, "status 503", now)
        assert decisions(keyring, now, good, made_up) == usual
    assert decisions(keyring, MAX_STALE - 1, good, made_up) == usual
    assert decisions(keyring, MAX_STALE, good, made_up) == [Reason.KEYS_STALE] * 2
    keyring.fetched(A, ONE, MAX_STALE + 1)
    assert decisions(keyring, MAX_STALE + 1, good, made_up) == usual


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
        self.good: dict[FetchedKeys, float] = {}
        self.flying: set[FetchedKeys] = set()

    sources = st.sampled_from([A, B])

    @step(seconds=st.floats(0, 30) | st.floats(0, 2 * MAX_STALE))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @step()
    def start_what_is_due(self) -> None:
        due = self.keyring.due(self.now)
        assert self.flying.isdisjoint(due)
        for source in due:
            self.keyring.started(source)
            self.flying.add(source)
        assert self.keyring.due(self.now) == ()

    @precondition(lambda self: self.flying)
    @step(keys=st.sampled_from([ONE, TWO, EMPTY]), max_age=st.none() | st.floats(0, 10**6), jitter=st.floats(0, 1))
    def land(self, keys: KeySet, max_age: float | None, jitter: float) -> None:
        source = self.flying.pop()
        self.keyring.fetched(source, keys, self.now, max_age, jitter=jitter)
        if keys.keys:
            self.good[source] = self.now

    @precondition(lambda self: self.flying)
    @step(jitter=st.floats(0, 1))
    def crash(self, jitter: float) -> None:
        self.keyring.failed(self.flying.pop(), "no", self.now, jitter=jitter)

    @step(source=sources)
    def miss(self, source: RemoteKeys) -> None:
        if self.keyring.key_missed(source, self.now):
            assert source in self.flying or source in self.keyring.due(self.now)

    @step()
    def look(self) -> None:
        self.keyring.due(self.now)
        fresh = {source for source, at in self.good.items() if self.now - at < MAX_STALE}
        held = self.keyring.keys()
        assert {source for source, keys in held.items() if not keys.expired} == fresh
        assert held.keys() == self.good.keys()

    @invariant()
    def every_source_is_due_some_time_or_under_way(self) -> None:
        for state in self.keyring.states(self.now):
            assert (state.refresh_in is None) == (state.source in self.flying)

    @invariant()
    def a_set_has_keys_or_is_known_to_be_too_old(self) -> None:
        assert all(bool(keys.keys) is not keys.expired for keys in self.keyring.keys().values())


TestAnyOrder = AnyOrder.TestCase
