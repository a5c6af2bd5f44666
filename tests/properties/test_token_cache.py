"""A cache of verified tokens changes no answer, whatever happens to tokens, keys, rules and the clock."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from countersign.core.facts import HttpRequest
from countersign.core.jwt_rule import ClaimToHeader, HeaderLocation, JwtRule, KeySource, RemoteKeys
from countersign.core.posture import Posture
from countersign.tokens.authenticate import authenticate
from countersign.tokens.cache import TokenCache
from countersign.tokens.keys import KeySet
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test
from hypothesis.stateful import rule as step

from tests.tokens.material import NOW, inline, jwk, key_set, request, rule, sign

A, B = RemoteKeys("https://a.test/jwks"), RemoteKeys("https://b.test/jwks")
INLINE = inline(jwk("ES256", 0), jwk("ES256", 1))
SETS: tuple[tuple[dict[str, Any], ...], ...] = (
    (jwk("ES256", 0),),
    (jwk("ES256", 0, kid=None),),
    (jwk("ES256", 1), jwk("ES256", 0)),
    (jwk("ES256", 1, kid="ES256-0"),),
    (jwk("ES256", 1, kid="ES256-0"), jwk("ES256", 0)),
    (jwk("ES256", 2),),
    (*(jwk("ES256", which, kid="ES256-0") for which in range(1, 9)), jwk("ES256", 0)),
)
RULES: tuple[JwtRule, ...] = (
    rule("https://a.test", keys=A, audiences=("one",)),
    rule("https://a.test", keys=A, audiences=("two",), output_payload_to_header="x-payload"),
    rule("https://a.test", keys=B, output_claim_to_headers=(ClaimToHeader("x-sub", "sub"), ClaimToHeader("x-s", "s"))),
    rule("https://b.test", keys=B, space_delimited_claims=frozenset({"s"}), forward_original_token=True),
    rule("https://b.test", keys=INLINE, from_headers=(HeaderLocation("x-token"),), from_params=("t",)),
    rule("", keys=A, from_headers=(HeaderLocation("x-token"), HeaderLocation("authorization", "Bearer "))),
)
TIMED: tuple[Mapping[str, Any], ...] = (
    {"exp": NOW + 50},
    {"exp": NOW + 50, "nbf": NOW + 20, "iat": NOW + 30},
    {"exp": NOW + 500.9, "iat": NOW + 100},
    {"exp": 0},
    {},
)
TOKENS: tuple[str, ...] = (
    *(
        sign({"iss": issuer, "sub": "u", "aud": audience, "s": "a b", **times}, algorithm="ES256", which=which)
        for issuer in ("https://a.test", "https://b.test")
        for audience in ("one", ["two", "one"])
        for times in TIMED
        for which in (0, 1)
    ),
    *(
        sign({"iss": "https://a.test", "exp": NOW + 500}, algorithm="ES256", header=header)
        for header in (
            {"alg": "ES256"},
            {"alg": "ES256", "kid": "", "crit": ["x"]},
            {"alg": "ES256", "typ": "secevent"},
        )
    ),
    sign({"iss": "https://a.test", "exp": NOW + 500}, algorithm="ES256", which=2, header={"alg": "ES256"}),
    "a.b.c",
    "",
)


class Twins(RuleBasedStateMachine):
    """The same requests to authenticators with and without a cache, while keys, rules and times change."""

    hits: ClassVar[int] = 0
    evictions: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        self.now = float(NOW)
        self.in_force = RULES
        self.keys: dict[KeySource, KeySet] = {INLINE: KeySet.parse(INLINE.jwks)}
        self.keys |= {A: key_set(*SETS[0]), B: key_set(*SETS[2])}
        self.caches = TokenCache(), TokenCache(3)

    @step(source=st.sampled_from([A, B]), members=st.sampled_from(SETS))
    def publish(self, source: RemoteKeys, members: tuple[dict[str, Any], ...]) -> None:
        self.keys = {**self.keys, source: key_set(*members)}

    @step(source=st.sampled_from([A, B]))
    def withdraw(self, source: RemoteKeys) -> None:
        self.keys = {each: keys for each, keys in self.keys.items() if each != source}

    @step(source=st.sampled_from([A, B]))
    def let_expire(self, source: RemoteKeys) -> None:
        if source in self.keys:
            self.keys = {**self.keys, source: replace(self.keys[source], expired=True)}

    @step(seconds=st.sampled_from([-60.0, -1.0, 0.5, 1.0, 10.0, 40.0, 100.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @step(which=st.lists(st.integers(0, len(RULES) - 1), unique=True))
    def load(self, which: list[int]) -> None:
        self.in_force = tuple(replace(RULES[number]) for number in sorted(which))

    @step(
        tokens=st.lists(st.sampled_from(TOKENS), min_size=1, max_size=3),
        places=st.lists(st.sampled_from(["bearer", "x-token", "query"]), min_size=3, max_size=3),
        posture=st.sampled_from(Posture),
        may_wait=st.booleans(),
        times=st.integers(1, 2),
    )
    def ask(self, tokens: list[str], places: list[str], posture: Posture, may_wait: bool, times: int) -> None:
        http = carrying(zip(tokens, places, strict=False))
        for _ in range(times):
            plain = authenticate(http, self.in_force, self.keys, self.now, posture, may_wait=may_wait)
            for cache in self.caches:
                cached = authenticate(http, self.in_force, self.keys, self.now, posture, may_wait=may_wait, cache=cache)
                assert cached == plain

    @step(token=st.sampled_from(TOKENS[:-2]))
    def ask_as_most_do(self, token: str) -> None:
        self.ask([token], ["bearer"] * 3, Posture.STRICT, may_wait=False, times=2)

    def teardown(self) -> None:
        assert len(self.caches[1]) <= 3
        Twins.hits += self.caches[0].hits
        Twins.evictions += self.caches[1].evictions


def carrying(tokens: Iterator[tuple[str, str]]) -> HttpRequest:
    headers: list[tuple[str, str]] = []
    query: list[str] = []
    for token, place in tokens:
        match place:
            case "bearer":
                headers.append(("authorization", f"Bearer {token}"))
            case "x-token":
                headers.append(("x-token", token))
            case _:
                query.append(f"access_token={token}&t={token}")
    return request(*headers, path=f"/?{'&'.join(query)}")


def test_whatever_happens_the_answer_is_that_of_a_verification() -> None:
    run_state_machine_as_test(
        Twins,
        settings=settings(
            deadline=None, max_examples=120, stateful_step_count=40, suppress_health_check=list(HealthCheck)
        ),
    )

    assert Twins.hits > 50
    assert Twins.evictions > 10
