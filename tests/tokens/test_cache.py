"""Verified tokens that are remembered: nobody can tell but by the time it takes."""

import gc
import json
import random
import sys
import threading
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
from countersign.core.decision import Reason
from countersign.core.identity import VerifiedToken
from countersign.core.jwt_rule import ClaimToHeader, JwtRule, KeySource, RemoteKeys
from countersign.core.posture import Posture
from countersign.tokens.authenticate import Authenticated, KeysNeeded, TokenRefused, authenticate
from countersign.tokens.cache import MAX_OCTETS, Proof, TokenCache, digest
from countersign.tokens.jose import TokenError, UnverifiedToken, parse
from countersign.tokens.keys import KeySet
from countersign.tokens.proof import Prover
from countersign.tokens.verify import verify
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tokens.material import (
    AUDIENCE,
    CLAIMS,
    NOW,
    REMOTE,
    bearer,
    jwk,
    key_set,
    rule,
    sign,
)

STRICT, ISTIO = Posture.STRICT, Posture.ISTIO
BOTH = pytest.mark.parametrize("posture", [STRICT, ISTIO])
RULE = rule(audiences=(AUDIENCE,))
GOOD = sign(algorithm="EdDSA")
KEYS: Mapping[KeySource, KeySet] = {REMOTE: key_set(jwk("EdDSA"))}


def ask(
    cache: TokenCache | None,
    token: str = GOOD,
    *rules: JwtRule,
    keys: Mapping[KeySource, KeySet] = KEYS,
    now: float = NOW,
    posture: Posture = STRICT,
) -> Authenticated | TokenRefused | KeysNeeded:
    return authenticate(bearer(token), rules or (RULE,), keys, now, posture, may_wait=False, cache=cache)


def reason(outcome: Authenticated | TokenRefused | KeysNeeded) -> Reason | None:
    """Why not; None for a token that counts."""
    assert not isinstance(outcome, KeysNeeded)
    return None if isinstance(outcome, Authenticated) else outcome.reason


def primed(*tokens: str, **how: Any) -> TokenCache:
    """A cache that knows these tokens."""
    cache = TokenCache()
    for token in tokens or (GOOD,):
        assert reason(ask(cache, token, **how)) is None
    assert (cache.hits, len(cache)) == (0, len(tokens) or 1)
    return cache


# --- a hit ------------------------------------------------------------------------------------------------------------


@BOTH
def test_a_token_is_verified_once_and_its_identity_remembered(posture: Posture) -> None:
    cache = TokenCache()
    outcomes = [ask(cache, posture=posture) for _ in range(3)]

    assert outcomes[0] == outcomes[1] == ask(None, posture=posture)
    assert isinstance(outcomes[2], Authenticated)
    assert outcomes[2] == outcomes[0]
    assert (cache.hits, cache.misses, cache.evictions, len(cache)) == (2, 1, 0, 1)


def test_a_known_token_is_not_parsed_for_the_rules_of_other_issuers() -> None:
    others = tuple(rule(f"https://{n}.test", keys=RemoteKeys(f"https://{n}.test/jwks")) for n in range(3))
    keys: Mapping[KeySource, KeySet] = {**KEYS, **{other.keys: KEYS[REMOTE] for other in others}}
    cache = TokenCache()
    prover = Prover(keys, NOW, STRICT, cache=cache)
    expected = ask(cache, GOOD, *others, RULE, keys=keys)

    assert ask(cache, GOOD, *others, RULE, keys=keys) == expected
    for by in others:
        with pytest.raises(TokenError, match="issuer"):
            prover.prove(GOOD, by)
    prover.prove(GOOD, RULE)
    assert prover._parsed == {}


def test_a_cache_of_no_entries_keeps_nothing() -> None:
    cache = TokenCache(0)

    assert [reason(ask(cache)) for _ in range(2)] == [None, None]
    assert (len(cache), cache.octets, cache.hits) == (0, 0, 0)


# --- what ends it -----------------------------------------------------------------------------------------------------

TIMES: Mapping[str, Any] = {"nbf": NOW + 100, "iat": NOW + 200, "exp": NOW + 1000}


@BOTH
def test_a_hit_is_held_against_the_clock_as_a_verification_is(posture: Posture) -> None:
    token = sign({**CLAIMS, **TIMES}, algorithm="EdDSA")
    cache = primed(token, now=NOW + 500, posture=posture)
    edges = [NOW + at + d for at in (40, 140, 1060) for d in (-1.0, -0.1, 0.0, 0.9, 1.0)]
    cached = [ask(cache, token, now=now, posture=posture) for now in edges]

    assert cached == [ask(None, token, now=now, posture=posture) for now in edges]
    refused = [reason(outcome) for outcome in cached]
    assert {Reason.TOKEN_EXPIRED, Reason.TOKEN_NOT_YET_VALID} < set(refused)
    assert cache.hits == refused.count(None) > 5  # to the last second


def test_a_token_that_never_expires_stays_known_in_istios_posture_and_is_none_in_ours() -> None:
    token = sign({name: value for name, value in CLAIMS.items() if name != "exp"}, algorithm="EdDSA")
    cache = primed(token, posture=ISTIO)

    assert reason(ask(cache, token, posture=ISTIO, now=NOW * 5)) is None
    assert cache.hits == 1
    assert reason(ask(cache, token, posture=STRICT)) is Reason.TOKEN_NO_EXPIRY


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ([jwk("EdDSA", 1)], Reason.TOKEN_UNKNOWN_KEY),
        ([jwk("EdDSA", 1, kid="EdDSA-0")], Reason.TOKEN_SIGNATURE),  # another key in its place
        ([jwk("EdDSA", 0, kid="renamed")], Reason.TOKEN_UNKNOWN_KEY),
        ([jwk("ES256")], Reason.TOKEN_UNKNOWN_KEY),
    ],
)
def test_a_token_goes_with_its_key(members: list[dict[str, Any]], expected: Reason) -> None:
    cache = primed()
    without: Mapping[KeySource, KeySet] = {REMOTE: key_set(*members)}

    assert reason(ask(cache, keys=without)) is expected
    assert reason(ask(cache, keys={})) is Reason.KEYS_UNAVAILABLE
    assert reason(ask(cache, keys={REMOTE: replace(key_set(jwk("EdDSA")), expired=True)})) is Reason.KEYS_STALE
    assert cache.hits == 0
    assert reason(ask(cache)) is None


def test_a_key_beyond_those_that_are_tried_is_gone_too() -> None:
    crowd = [jwk("EdDSA", which, kid=None) for which in range(1, 9)]
    cache = primed()

    assert reason(ask(cache, keys={REMOTE: key_set(*crowd[1:], jwk("EdDSA"))})) is None
    assert cache.hits == 1
    assert reason(ask(cache, keys={REMOTE: key_set(*crowd, jwk("EdDSA"))})) is Reason.TOKEN_SIGNATURE


def test_a_refresh_that_leaves_the_key_leaves_its_tokens() -> None:
    cache = primed()
    for members in ([jwk("EdDSA")], [jwk("EdDSA", 1), jwk("EdDSA")], [jwk("EdDSA", kid=None)], [jwk("EdDSA")]):
        assert reason(ask(cache, keys={REMOTE: key_set(*members)})) is None

    assert (cache.hits, cache.misses) == (4, 1)


def test_a_token_of_one_issuers_key_is_none_for_another_rule() -> None:
    """CVE-2021-21378, GHSA-4mq7-pvjg-xp2r: what is known under one rule says nothing under the next."""
    other = RemoteKeys("https://other.test/jwks")
    keys = {**KEYS, other: key_set(jwk("EdDSA", 1, kid="EdDSA-0"))}
    cache = primed(keys=keys)

    assert reason(ask(cache, GOOD, rule(keys=other), keys=keys)) is Reason.TOKEN_SIGNATURE
    assert reason(ask(cache, GOOD, rule("https://other.test"), keys=keys)) is Reason.TOKEN_ISSUER
    assert reason(ask(cache, GOOD, rule(audiences=("other",)), keys=keys)) is Reason.TOKEN_AUDIENCE
    assert cache.hits == 0


def test_a_rule_that_was_loaded_again_verifies_again() -> None:
    cache = primed()

    assert reason(ask(cache, GOOD, replace(RULE))) is None
    assert (cache.hits, cache.misses) == (0, 2)


def test_several_rules_know_one_token_and_not_more_than_four() -> None:
    rules = [rule(output_claim_to_headers=(ClaimToHeader(f"x-{n}", "sub"),)) for n in range(6)]
    cache = TokenCache()
    for by in (*rules, *rules[2:]):
        assert ask(cache, GOOD, by) == ask(None, GOOD, by)

    assert (cache.hits, cache.misses, len(cache)) == (4, 6, 1)
    assert ask(cache, GOOD, rules[0]) == ask(None, GOOD, rules[0])
    assert (cache.hits, cache.misses) == (4, 7)


def test_postures_do_not_share() -> None:
    token = sign(header={"alg": "EdDSA", "typ": "dpop+jwt"}, algorithm="EdDSA")
    cache = primed(token, posture=ISTIO)

    assert reason(ask(cache, token, posture=STRICT)) is Reason.TOKEN_TYPE
    assert cache.hits == 0


# --- what is kept -----------------------------------------------------------------------------------------------------


@BOTH
def test_no_refusal_is_kept(posture: Posture) -> None:
    cache = TokenCache()
    bad = (
        "x",
        "x" * 60_000,
        "a\ud800b",
        sign(algorithm="EdDSA", which=1, header={"alg": "EdDSA", "kid": "EdDSA-0"}),
        sign({**CLAIMS, "exp": NOW - 100}, algorithm="EdDSA"),
        sign({**CLAIMS, "aud": "x"}, algorithm="EdDSA"),
        sign(algorithm="ES256"),
    )
    for token in bad:
        assert reason(ask(cache, token, posture=posture)) is reason(ask(None, token, posture=posture)) is not None

    assert (len(cache), cache.octets, cache.hits) == (0, 0, 0)
    assert reason(ask(cache, bad[-1], keys={REMOTE: key_set(jwk("ES256"))}, posture=posture)) is None


def test_what_another_verifier_says_is_never_kept() -> None:
    def assume(token: UnverifiedToken, by: JwtRule, keys: KeySet | None, now: float, how: Posture) -> VerifiedToken:
        return verify(token, by, keys, now, how)

    cache = TokenCache()
    outcome = authenticate(bearer(GOOD), (RULE,), KEYS, NOW, STRICT, may_wait=False, cache=cache, verifier=assume)

    assert reason(outcome) is None
    assert len(cache) == 0


def test_no_token_is_in_its_memory() -> None:
    token = sign({**CLAIMS, "scope": "a b"}, algorithm="EdDSA")
    everything = rule(output_payload_to_header="x-payload", output_claim_to_headers=(ClaimToHeader("x-s", "sub"),))
    cache = TokenCache()
    ask(cache, token, everything)

    texts = [each for each in reachable(cache) if isinstance(each, str | bytes)]
    head, payload, signature = token.split(".")
    assert payload in texts
    held = [each if isinstance(each, str) else each.decode("latin-1") for each in texts]
    assert head in held  # many tokens have the same
    assert not [each for each in held if token in each or signature in each or f"{head}.{payload}" in each]


def test_headers_are_remembered_within_bounds() -> None:
    cache = TokenCache()
    for number in range(100):
        kid = f"{number}" * (1 if number else 600)
        keys = key_set(jwk("EdDSA", kid=None))
        assert (
            reason(ask(cache, sign(header={"alg": "EdDSA", "kid": kid}, algorithm="EdDSA"), keys={REMOTE: keys}))
            is None
        )
        assert len(cache.heads) <= 64
        assert not [segment for segment in cache.heads if len(segment) > 512]
    assert len(cache) == 100
    assert cache.heads


def test_it_keeps_neither_rules_nor_key_sets_alive() -> None:
    by, keys = replace(RULE), key_set(jwk("EdDSA"))
    gone = weakref.ref(by), weakref.ref(keys)
    cache = TokenCache()
    assert reason(ask(cache, GOOD, by, keys={REMOTE: keys})) is None
    del by, keys
    gc.collect()

    assert [each() for each in gone] == [None, None]
    assert reason(ask(cache)) is None
    assert len(list(next(iter(cache._known.values()))._held.and_others())) == 1


def test_the_digest_is_of_the_whole_token() -> None:
    assert digest(GOOD) != digest(GOOD[:-1])
    assert digest("x" * 8193) == digest("\xe9") == b""
    assert len(digest(GOOD)) == 32


# --- bounds -----------------------------------------------------------------------------------------------------------


def numbered(count: int, size: int = 0) -> Iterator[str]:
    """That many good tokens, each other than the rest."""
    for number in range(count):
        yield sign({**CLAIMS, "jti": f"{number}", "x": "x" * size}, algorithm="EdDSA")


def test_it_holds_so_many_tokens_and_so_many_octets() -> None:
    few, small = TokenCache(5), TokenCache(1000, octets=5_000)
    for token in numbered(20):
        for cache, most in ((few, 5 * 4096), (small, 5_000)):
            assert reason(ask(cache, token)) is None
            assert 0 < cache.octets <= most

    assert (len(few), few.evictions) == (5, 15)
    assert 2 <= len(small) < 10
    assert len(small) + small.evictions == 20


def test_a_giant_is_verified_each_time() -> None:
    by = rule(
        output_payload_to_header="x-payload",
        output_claim_to_headers=(ClaimToHeader("x-a", "x"), ClaimToHeader("x-b", "x")),
    )
    giant = sign({**CLAIMS, "x": "x" * 4500}, algorithm="EdDSA")
    cache = primed()
    assert [reason(ask(cache, giant, by)) for _ in range(2)] == [None, None]

    assert (cache.hits, len(cache)) == (0, 1)
    assert cache.octets < MAX_OCTETS


@pytest.mark.parametrize(("size", "octets"), [(1, 10**9), (3000, 40 * 8192)])
def test_a_flood_of_tokens_passes_by_those_in_use(size: int, octets: int) -> None:
    cache = TokenCache(40, octets)
    used = list(numbered(10))
    for token in (*used, *used):
        ask(cache, token)
    for token in numbered(200, size):
        ask(cache, token)
    before = cache.hits
    for token in used:
        ask(cache, token)

    assert cache.hits - before == 10
    assert cache.evictions > 100


def test_those_that_stay_are_not_for_ever() -> None:
    cache = TokenCache(8)
    for token in numbered(8):
        ask(cache, token)
        ask(cache, token)
    newer = [sign({**CLAIMS, "jti": f"newer {n}"}, algorithm="EdDSA") for n in range(40)]
    for token in newer:  # each is used twice at once, so each has its chance
        ask(cache, token)
        ask(cache, token)
    assert len(cache) == 8
    hits = cache.hits
    for token in numbered(8):
        ask(cache, token)

    assert cache.hits == hits


def test_of_those_that_stay_the_ones_no_longer_used_go_first() -> None:
    cache = TokenCache(40, 10**9)
    tokens = list(numbered(41))
    for token in (*tokens[:40], *tokens):  # the last one sends all others on to those that stay, as if never used
        ask(cache, token)
    used = tokens[5:40:3]
    for newer in (sign({**CLAIMS, "jti": f"newer {n}"}, algorithm="EdDSA") for n in range(50)):
        for token in (*used, newer, newer):
            ask(cache, token)
    hits = cache.hits
    for token in used:
        ask(cache, token)

    assert cache.hits - hits == len(used)
    assert cache.evictions == 51


def test_threads_neither_wait_for_each_other_nor_leave_it_in_disorder() -> None:
    cache, faults = TokenCache(20), list[BaseException]()
    tokens = [parse(token) for token in numbered(60)]
    proofs = [Proof(verify(token, RULE, KEYS[REMOTE], NOW, STRICT), ()) for token in tokens]
    sets = [KEYS[REMOTE], key_set(jwk("EdDSA", 1), jwk("EdDSA"))]

    def work(number: int) -> None:
        chance = random.Random(number)  # noqa: S311 (any order will do)
        try:
            for turn in range(3000):
                which, name = chance.randrange(60), bytes([chance.randrange(60)])
                known = cache.find(name)
                if known is None or known.proof(RULE, sets[turn % 2], NOW, STRICT) is None:
                    cache.keep(name, proofs[which], tokens[which], RULE, sets[0], STRICT)
        except BaseException as error:  # noqa: BLE001 (a thread must not swallow it)
            faults.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    queued = [*cache._newcomers.entries, *cache._staying.entries]

    assert not faults
    assert sorted(known.digest for known in queued) == sorted(cache._known)
    assert cache.octets == sum(known.octets for known in queued) <= 20 * 8192
    assert cache.evictions > 100


def test_whoever_comes_while_another_thread_keeps_a_token_goes_without() -> None:
    cache = TokenCache()
    cache._turn.clear()
    assert reason(ask(cache)) is None
    assert len(cache) == 0
    cache._turn.append(None)
    assert [reason(ask(cache)) for _ in range(2)] == [None, None]
    assert (len(cache), cache.hits) == (1, 1)


def test_an_eviction_looks_at_few_entries_even_if_all_are_in_use() -> None:
    cache = TokenCache(100)
    tokens = list(numbered(100))
    for token in (*tokens, *tokens):
        ask(cache, token)
    (one_more,) = (sign({**CLAIMS, "jti": "one more"}, algorithm="EdDSA"),)
    ask(cache, one_more)

    assert (len(cache), cache.evictions) == (100, 1)
    assert sum(not known.used for known in cache._known.values()) <= 65


ATOM = st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(max_size=20) | st.sampled_from(["\U0001f600" + "x" * 60, "a bc def ghij " * 9, "\xe9" * 9])
CLAIM = st.recursive(
    ATOM | TEXT,
    lambda inner: st.lists(inner, max_size=12) | st.dictionaries(TEXT, inner, max_size=12),
    max_leaves=40,
)


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(TEXT, CLAIM, max_size=30), st.booleans())
def test_the_octets_are_never_fewer_than_it_takes(extra: dict[str, Any], escaped: bool) -> None:
    by = rule(
        output_payload_to_header="x-payload",
        output_claim_to_headers=(ClaimToHeader("x-a", "scope"), ClaimToHeader("x-b", "scope")),
    )
    payload = json.dumps({**extra, **CLAIMS}, ensure_ascii=escaped).encode("utf-8", "replace")
    token = sign(payload, algorithm="EdDSA")
    cache = primed()  # with what tokens share: a header, and the dictionaries
    shared = {id(each) for each in [*reachable(by), *reachable(RULE), *reachable(KEYS[REMOTE])]}
    size, octets = size_of(cache, shared), cache.octets
    ask(cache, token, by)

    assert size_of(cache, shared) - size <= cache.octets - octets


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(TEXT, CLAIM, max_size=30))
def test_claims_are_remembered_to_the_last_bit(extra: dict[str, Any]) -> None:
    token = sign({**extra, **CLAIMS}, algorithm="EdDSA")
    cache = TokenCache()

    assert repr(ask(cache, token)) == repr(ask(cache, token)) == repr(ask(None, token))
    assert cache.hits == len(cache)


def reachable(root: object) -> list[object]:
    """All that an object holds, classes and modules excluded."""
    found: dict[int, object] = {}
    todo = [root]
    while todo:
        each = todo.pop()
        if id(each) in found or isinstance(each, type) or callable(each):
            continue
        found[id(each)] = each
        todo += gc.get_referents(each)
    return list(found.values())


def size_of(root: object, shared: frozenset[int] | set[int] = frozenset()) -> int:
    """Octets of all that an object holds; small integers and letters are everybody's."""
    return sum(sys.getsizeof(each) for each in reachable(root) if id(each) not in shared)
