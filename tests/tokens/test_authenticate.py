"""A whole RequestAuthentication: which token counts, or why the request is refused."""

from collections.abc import Mapping
from dataclasses import replace
from math import inf
from typing import Any

import pytest
from countersign.core.decision import Mutations, PolicyRef, Reason
from countersign.core.facts import HttpRequest
from countersign.core.jwt_rule import ClaimToHeader, HeaderLocation, JwtRule, KeySource, RemoteKeys
from countersign.core.posture import Posture
from countersign.tokens.authenticate import MAX_TOKENS, Authenticated, KeysNeeded, TokenRefused, authenticate
from countersign.tokens.jose import TokenError
from countersign.tokens.keyring import TOO_OLD
from countersign.tokens.keys import KeySet
from countersign.tokens.proof import Prover
from hypothesis import given
from hypothesis import strategies as st

from tests.tokens.material import (
    AUDIENCE,
    CLAIMS,
    NOW,
    REMOTE,
    bearer,
    cases,
    inline,
    jwk,
    key_set,
    request,
    rule,
    sign,
)

STRICT, ISTIO = Posture.STRICT, Posture.ISTIO
BOTH = pytest.mark.parametrize("posture", [STRICT, ISTIO])

A, B = RemoteKeys("https://a.test/jwks"), RemoteKeys("https://b.test/jwks")
KEYS: Mapping[KeySource, KeySet] = {
    REMOTE: key_set(jwk("ES256")),
    A: key_set(jwk("ES256", 1)),
    B: key_set(jwk("ES256", 2)),
}
RULE = rule(audiences=(AUDIENCE,))
RULE_A = rule("https://a.test", keys=A)
RULE_B = rule("https://b.test", keys=B)
GOOD = sign(algorithm="ES256")
EXPIRED = sign({**CLAIMS, "exp": NOW - 100}, algorithm="ES256")
WRONG_AUDIENCE = sign({**CLAIMS, "aud": "x"}, algorithm="ES256")
FORGED = sign(algorithm="ES256", which=3, header={"alg": "ES256", "kid": "ES256-0"})
UNKNOWN_KEY = sign(algorithm="ES256", header={"alg": "ES256", "kid": "new"})


def token_of(rule_: JwtRule, which: int, **claims: Any) -> str:
    return sign({**CLAIMS, "iss": rule_.issuer, **claims}, algorithm="ES256", which=which)


def judge(
    http: HttpRequest,
    *rules: JwtRule,
    keys: Mapping[KeySource, KeySet] = KEYS,
    posture: Posture = STRICT,
    may_wait: bool = False,
) -> Authenticated | TokenRefused | KeysNeeded:
    return authenticate(http, rules or (RULE,), keys, NOW, posture, may_wait=may_wait)


def subject(outcome: Authenticated | TokenRefused | KeysNeeded) -> str | None:
    assert isinstance(outcome, Authenticated), outcome
    return outcome.token.subject if outcome.token else None


def refusal(outcome: Authenticated | TokenRefused | KeysNeeded) -> tuple[Reason, int, str]:
    assert isinstance(outcome, TokenRefused), outcome
    return outcome.reason, outcome.status, outcome.text


EXPIRED_401 = (Reason.TOKEN_EXPIRED, 401, "Jwt is expired")
AUDIENCE_403 = (Reason.TOKEN_AUDIENCE, 403, "Audiences in Jwt are not allowed")
ISSUER_401 = (Reason.TOKEN_ISSUER, 401, "Jwt issuer is not configured")
SIGNATURE_401 = (Reason.TOKEN_SIGNATURE, 401, "Jwt verification fails")
FETCH_401 = (Reason.KEYS_UNAVAILABLE, 401, "Jwks remote fetch is failed")
KID_401 = (Reason.TOKEN_UNKNOWN_KEY, 401, "Jwks doesn't have key to match kid or alg from Jwt")
FORM_401 = (
    Reason.TOKEN_MALFORMED,
    401,
    "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections",
)


@BOTH
def test_without_a_token_a_request_is_anonymous(posture: Posture) -> None:
    for http in (request(), request(("authorization", "Basic dTpw")), request(("authorization", f"bearer {GOOD}"))):
        assert judge(http, posture=posture) == Authenticated(token=None, mutations=Mutations(), until=inf)
    assert judge(bearer("x"), rule(from_params=("p",)), posture=posture) == Authenticated(
        token=None, mutations=Mutations(), until=inf
    )


@BOTH
def test_without_rules_every_request_is_anonymous(posture: Posture) -> None:
    assert authenticate(bearer("x"), (), {}, NOW, posture, may_wait=True) == Authenticated(
        token=None, mutations=Mutations(), until=inf
    )


@BOTH
def test_a_good_token_gives_the_identity_and_is_taken_out(posture: Posture) -> None:
    outcome = judge(bearer(GOOD), posture=posture)

    assert isinstance(outcome, Authenticated)
    assert outcome.token is not None
    assert (outcome.token.issuer, outcome.token.subject) == ("https://idp.example", "alice")
    assert outcome.mutations == Mutations(remove_headers=("authorization",))


@BOTH
@pytest.mark.parametrize(
    ("token", "expected"),
    [
        ("x", FORM_401),
        (EXPIRED, EXPIRED_401),
        (WRONG_AUDIENCE, AUDIENCE_403),
        (FORGED, SIGNATURE_401),
        (UNKNOWN_KEY, KID_401),
        (token_of(RULE_A, 1), ISSUER_401),
    ],
)
def test_a_bad_token_refuses_the_request(token: str, expected: tuple[Reason, int, str], posture: Posture) -> None:
    assert refusal(judge(bearer(token), posture=posture)) == expected
    assert refusal(judge(request(path=f"/?access_token={token}"), posture=posture)) == expected


def test_the_refusal_names_the_rule_for_the_operator() -> None:
    outcome = judge(bearer(EXPIRED))

    assert isinstance(outcome, TokenRefused)
    assert outcome.policy == PolicyRef(id="RequestAuthentication[ns/name]", source="policy.yaml:1")


def test_inline_keys_work_alike() -> None:
    source = inline(jwk("ES256"))
    by = rule(keys=source)

    assert subject(judge(bearer(GOOD), by, keys={source: KeySet.parse(source.jwks)})) == "alice"
    no_keys = (Reason.KEYS_UNAVAILABLE, 401, "Jwks doesn't have any valid public key")
    assert refusal(judge(bearer(GOOD), by, keys={}, may_wait=True)) == no_keys


# Several tokens of one rule

EVERYWHERE = rule(audiences=(AUDIENCE,), from_headers=(HeaderLocation("h"),), from_params=("p",), from_cookies=("c",))


def test_all_tokens_of_a_rule_must_verify() -> None:
    """Else the workload might use the one that did not."""
    for bad, expected in ((FORGED, SIGNATURE_401), (EXPIRED, EXPIRED_401), ("x", FORM_401)):
        assert refusal(judge(request(("h", GOOD), path=f"/?p={bad}"), EVERYWHERE)) == expected
        assert refusal(judge(request(("h", bad), path=f"/?p={GOOD}"), EVERYWHERE)) == expected
        assert refusal(judge(request(("h", GOOD), ("h", bad)), EVERYWHERE)) == expected
        assert refusal(judge(request(("h", GOOD), ("cookie", f"c={bad}")), EVERYWHERE)) == expected
    assert subject(judge(request(("h", GOOD), path=f"/?p={GOOD}"), EVERYWHERE)) == "alice"


def test_the_last_location_is_judged_first() -> None:
    http = request(("h", EXPIRED), ("cookie", "c=x"), path=f"/?p={FORGED}")

    assert refusal(judge(http, EVERYWHERE)) == FORM_401
    assert refusal(judge(request(("h", EXPIRED), path=f"/?p={FORGED}"), EVERYWHERE)) == SIGNATURE_401


def test_the_first_location_is_the_identity() -> None:
    bob, carol = (sign({**CLAIMS, "sub": name}, algorithm="ES256") for name in ("bob", "carol"))

    assert subject(judge(request(("h", GOOD), ("cookie", f"c={carol}"), path=f"/?p={bob}"), EVERYWHERE)) == "alice"
    assert subject(judge(request(("cookie", f"c={carol}"), path=f"/?p={bob}"), EVERYWHERE)) == "bob"
    assert subject(judge(request(("cookie", f"c={carol}")), EVERYWHERE)) == "carol"


@BOTH
def test_more_tokens_than_the_bound_are_refused(posture: Posture) -> None:
    lines = [("h", GOOD)] * (MAX_TOKENS + 1)

    assert subject(judge(request(*lines[1:]), EVERYWHERE, posture=posture)) == "alice"
    assert refusal(judge(request(*lines), EVERYWHERE, posture=posture)) == (
        Reason.TOKEN_AMBIGUOUS,
        401,
        "More than 4 Jwts",
    )


# Two credentials in one header


def test_two_authorization_headers_are_refused() -> None:
    """Strict says why. Envoy joins the lines, and two tokens in one are none; a token and another scheme may pass."""
    twice = request(("authorization", f"Bearer {GOOD}"), ("authorization", f"Bearer {GOOD}"))
    other = request(("authorization", "Basic dTpw"), ("authorization", f"Bearer {GOOD}"))
    ambiguous = (Reason.TOKEN_AMBIGUOUS, 401, "More than one authorization header")

    for http in (twice, other):
        assert refusal(judge(http)) == ambiguous
        assert subject(judge(http, rule(from_params=("p",)))) is None  # no rule looks there
    assert refusal(judge(twice, posture=ISTIO)) == FORM_401
    assert subject(judge(other, posture=ISTIO)) == "alice"
    assert subject(judge(bearer(GOOD))) == "alice"


def test_strict_refuses_two_tokens_that_envoy_has_joined() -> None:
    line = ("authorization", f"Bearer {GOOD},Bearer {GOOD}")

    assert refusal(judge(request(line, joined=True)))[0] is Reason.TOKEN_AMBIGUOUS
    assert refusal(judge(request(line)))[0] is Reason.TOKEN_MALFORMED
    assert refusal(judge(request(line, joined=True), posture=ISTIO))[0] is Reason.TOKEN_MALFORMED
    assert subject(judge(request(("authorization", f"Bearer {GOOD}"), joined=True))) == "alice"
    plain = rule(from_headers=(HeaderLocation("authorization"),))
    assert refusal(judge(request(("authorization", "a,b"), joined=True), plain))[0] is Reason.TOKEN_AMBIGUOUS


# Several rules


def test_each_issuer_is_judged_by_its_own_rule_and_keys() -> None:
    rules = (RULE_A, RULE_B)

    assert subject(judge(bearer(token_of(RULE_A, 1)), *rules)) == "alice"
    assert subject(judge(bearer(token_of(RULE_B, 2)), *rules)) == "alice"
    # The key of one issuer never verifies a token of another (RFC 8725 2.8).
    crossed = sign({**CLAIMS, "iss": RULE_A.issuer}, algorithm="ES256", which=2, header={"alg": "ES256"})
    assert refusal(judge(bearer(crossed), *rules)) == SIGNATURE_401
    assert refusal(judge(bearer(GOOD), *rules)) == ISSUER_401


def test_the_first_rule_that_verifies_wins_and_other_tokens_are_not_examined() -> None:
    first = rule("https://a.test", keys=A, from_headers=(HeaderLocation("h1"),))
    second = rule("https://b.test", keys=B, from_headers=(HeaderLocation("h2"),))
    one, two = token_of(first, 1, sub="one"), token_of(second, 2, sub="two")

    assert subject(judge(request(("h1", one), ("h2", two)), first, second)) == "one"
    assert subject(judge(request(("h1", one), ("h2", "garbage")), first, second)) == "one"
    assert subject(judge(request(("h1", "garbage"), ("h2", two)), first, second)) == "two"
    assert subject(judge(request(("h2", two)), first, second)) == "two"
    assert refusal(judge(request(("h2", "garbage")), first, second)) == FORM_401


@pytest.mark.parametrize(
    ("claims", "reason"),
    [({"exp": 0}, Reason.TOKEN_NO_EXPIRY), ({"iat": NOW + 600}, Reason.TOKEN_NOT_YET_VALID)],
)
@pytest.mark.parametrize(
    "keys", [KEYS, {B: KEYS[B]}, {**KEYS, A: TOO_OLD}], ids=["keys", "keys to be fetched", "keys too old"]
)
def test_a_token_that_only_strict_refuses_leaves_no_other_identity(
    claims: dict[str, int], reason: Reason, keys: Mapping[KeySource, KeySet]
) -> None:
    """Envoy would know the request by the first token, so strict must not let it pass by the second."""
    first = rule("https://a.test", keys=A, from_headers=(HeaderLocation("h1"),))
    second = rule("https://b.test", keys=B, from_headers=(HeaderLocation("h2"),))
    http = request(("h1", token_of(first, 1, sub="one", **claims)), ("h2", token_of(second, 2, sub="two")))

    assert refusal(judge(http, first, second, keys=keys))[0] is reason
    assert subject(judge(http, first, second, posture=ISTIO)) == "one"


@BOTH
def test_a_good_token_beside_a_bad_one_is_not_left_to_another_rule(posture: Posture) -> None:
    """Envoy has taken the good one out when it meets the bad one: the second rule finds nothing (measured on 1.40)."""
    first = rule(from_headers=(HeaderLocation("h"),), from_params=("p",))
    second = rule(from_params=("p",))
    http = request(("h", FORGED), path=f"/?p={GOOD}")

    assert refusal(judge(http, first, second, posture=posture)) == SIGNATURE_401
    assert subject(judge(request(path=f"/?p={GOOD}"), first, second, posture=posture)) == "alice"


@BOTH
def test_more_tokens_than_the_bound_are_not_left_to_another_rule(posture: Posture) -> None:
    first, second = rule(from_headers=(HeaderLocation("h"),), from_params=("p",)), rule(from_params=("p",))
    many = request(*[("h", GOOD)] * MAX_TOKENS, path=f"/?p={GOOD}")

    assert refusal(judge(many, first, second, posture=posture))[0] is Reason.TOKEN_AMBIGUOUS
    assert subject(judge(request(*[("h", GOOD)] * MAX_TOKENS), first, second, posture=posture)) == "alice"


def test_one_issuer_with_two_audiences_accepts_either() -> None:
    rules = (rule(audiences=("one",)), rule(audiences=("two",)))

    for audience in ("one", "two"):
        token = sign({**CLAIMS, "aud": audience}, algorithm="ES256")
        assert subject(judge(bearer(token), *rules)) == "alice"
    assert refusal(judge(bearer(GOOD), *rules)) == AUDIENCE_403


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (EXPIRED, WRONG_AUDIENCE, EXPIRED_401),  # the last child asks the first rule again
        (WRONG_AUDIENCE, EXPIRED, AUDIENCE_403),
        (token_of(RULE_A, 1), EXPIRED, EXPIRED_401),  # an unknown issuer only if there is nothing else
        (EXPIRED, token_of(RULE_A, 1), EXPIRED_401),
        (token_of(RULE_A, 1), token_of(RULE_A, 1), ISSUER_401),
        ("", EXPIRED, FORM_401),
    ],
)
def test_reports_the_status_that_envoys_tree_reports(
    first: str, second: str, expected: tuple[Reason, int, str]
) -> None:
    rules = tuple(rule(audiences=(AUDIENCE,), from_headers=(HeaderLocation(name),)) for name in ("h1", "h2"))

    assert refusal(judge(request(("h1", first), ("h2", second)), *rules)) == expected


# Output headers


def test_a_client_can_forge_no_output_header() -> None:
    first = rule("https://a.test", keys=A, output_claim_to_headers=(ClaimToHeader("x-user", "sub"),))
    second = rule("https://b.test", keys=B, output_payload_to_header="x-payload")
    forged = (("x-user", "root"), ("x-payload", "root"))

    anonymous = judge(request(*forged), first, second)
    known = judge(bearer(token_of(first, 1), *forged), first, second)
    preflight = judge(
        request(("origin", "o"), ("access-control-request-method", "GET"), *forged, method="OPTIONS"), first, second
    )

    assert anonymous == Authenticated(
        token=None, mutations=Mutations(remove_headers=("x-payload", "x-user")), until=inf
    )
    assert preflight == anonymous
    assert isinstance(known, Authenticated)
    assert known.mutations == Mutations(
        set_headers=(("x-user", "alice"),), remove_headers=("authorization", "x-payload")
    )


# CORS preflight

PREFLIGHT = (("origin", "https://web.test"), ("access-control-request-method", "PUT"))


@BOTH
def test_a_preflight_is_not_asked_for_its_token(posture: Posture) -> None:
    for token in (GOOD, EXPIRED, "x"):
        http = bearer(token, *PREFLIGHT)
        http = HttpRequest(method="OPTIONS", path="/", host="svc", headers=http.headers)
        assert subject(judge(http, posture=posture)) is None


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("GET", PREFLIGHT),
        ("options", PREFLIGHT),
        ("OPTIONS", PREFLIGHT[:1]),
        ("OPTIONS", PREFLIGHT[1:]),
        ("OPTIONS", (("origin", ""), PREFLIGHT[1])),
        ("OPTIONS", (PREFLIGHT[0], ("access-control-request-method", ""))),
    ],
)
def test_what_only_resembles_a_preflight_is_asked(method: str, headers: tuple[tuple[str, str], ...]) -> None:
    http = request(("authorization", f"Bearer {EXPIRED}"), *headers, method=method)

    assert refusal(judge(http)) == EXPIRED_401


# Keys that may come


@BOTH
def test_asks_for_keys_only_if_it_may_wait(posture: Posture) -> None:
    for token, keys, expected in ((GOOD, {}, FETCH_401), (UNKNOWN_KEY, KEYS, KID_401)):
        wait = judge(bearer(token), keys=keys, posture=posture, may_wait=True)
        assert isinstance(wait, KeysNeeded)
        assert wait.sources == frozenset({REMOTE})
        assert wait.refused == judge(bearer(token), keys=keys, posture=posture)
        assert refusal(wait.refused) == expected


@pytest.mark.parametrize("token", [EXPIRED, WRONG_AUDIENCE, "x", token_of(RULE_A, 1)])
def test_does_not_ask_for_keys_that_cannot_help(token: str) -> None:
    assert isinstance(judge(bearer(token), keys={}, may_wait=True), TokenRefused)
    assert isinstance(judge(bearer(FORGED), may_wait=True), TokenRefused)


def test_does_not_ask_for_keys_if_another_rule_verifies_or_no_token_is_there() -> None:
    lacking = rule(keys=A, from_headers=(HeaderLocation("h1"),))
    served = rule(from_headers=(HeaderLocation("h2"),))
    only: Mapping[KeySource, KeySet] = {REMOTE: KEYS[REMOTE]}

    assert subject(judge(request(("h1", GOOD), ("h2", GOOD)), lacking, served, keys=only, may_wait=True)) == "alice"
    assert subject(judge(request(), lacking, served, keys={}, may_wait=True)) is None
    both = judge(request(("h1", GOOD), ("h2", GOOD)), lacking, served, keys={}, may_wait=True)
    assert isinstance(both, KeysNeeded)
    assert both.sources == frozenset({A, REMOTE})
    mixed = judge(request(("h1", GOOD), ("h2", EXPIRED)), lacking, served, keys=only, may_wait=True)
    assert isinstance(mixed, KeysNeeded)
    assert mixed.sources == frozenset({A})


def test_inline_keys_never_come() -> None:
    source = inline(jwk("ES256"))
    keys: Mapping[KeySource, KeySet] = {source: KeySet.parse(source.jwks)}

    assert refusal(judge(bearer(UNKNOWN_KEY), rule(keys=source), keys=keys, may_wait=True)) == KID_401


# Vectors and properties


def test_what_the_extraction_vectors_call_ambiguous_is_refused() -> None:
    for row in cases("jwt/token_extraction_cases.json", "cases"):
        if (
            row["expect_tokens"] == "reject" and row["name"] != "authorization: 'Bearer\\tt'"
        ):  # a missing token in Envoy
            headers = [(name, value) for name, value in row["headers"]]
            by = rule(from_headers=(HeaderLocation("token-header"),)) if "custom" in row["name"] else RULE
            assert isinstance(judge(request(*headers), by), TokenRefused), row["name"]


PIECES = st.sampled_from([GOOD, EXPIRED, FORGED, "", "x", "a.b.c", "Bearer ", f"Bearer {GOOD}"])


@given(
    st.lists(st.tuples(st.sampled_from(["authorization", "h", "cookie"]), PIECES | st.text())), PIECES, st.booleans()
)
def test_every_request_has_an_answer_and_only_the_good_token_gives_an_identity(
    headers: list[tuple[str, str]], parameter: str, strict: bool
) -> None:
    http = request(*headers, path=f"/?p={parameter}")
    outcome = judge(http, RULE, EVERYWHERE, posture=STRICT if strict else ISTIO)

    if isinstance(outcome, Authenticated) and outcome.token is not None:
        assert outcome.token.subject == "alice"
        assert any(GOOD in value for _, value in [*headers, ("", parameter)])


MISSING_401 = (Reason.TOKEN_MISSING, 401, "Jwt is missing")


@BOTH
def test_a_required_token_that_is_missing_refuses_the_request(posture: Posture) -> None:
    required = replace(RULE_A, required=True)

    assert refusal(judge(request(), required, posture=posture)) == MISSING_401
    assert subject(judge(bearer(token_of(required, 1)), required, posture=posture)) is not None
    assert subject(judge(request(), RULE_A, posture=posture)) is None


@BOTH
def test_a_required_token_of_one_rule_is_not_missed_where_another_rule_verifies(posture: Posture) -> None:
    elsewhere = replace(RULE_A, from_headers=(HeaderLocation("x-other"),), required=True)

    assert subject(judge(bearer(token_of(RULE_A, 1)), elsewhere, RULE_A, posture=posture)) is not None
    assert refusal(judge(request(), elsewhere, RULE_A, posture=posture)) == MISSING_401
    assert refusal(judge(bearer(EXPIRED), elsewhere, RULE_A, posture=posture)) != MISSING_401


@BOTH
def test_a_required_token_that_is_missing_ends_what_envoy_asks_again(posture: Posture) -> None:
    """Envoy asks each rule a second time, and reports the last failure before it if it comes no further."""
    elsewhere = replace(RULE_A, from_headers=(HeaderLocation("x-other"),), required=True)
    for_others = replace(RULE, audiences=("x",))
    http = bearer(UNKNOWN_KEY)

    assert refusal(judge(http, RULE, for_others, elsewhere, posture=posture))[0] is Reason.TOKEN_UNKNOWN_KEY
    assert refusal(judge(http, elsewhere, RULE, for_others, posture=posture))[0] is Reason.TOKEN_AUDIENCE
    assert refusal(judge(http, elsewhere, RULE_B, posture=posture))[0] is Reason.TOKEN_ISSUER


@BOTH
def test_a_preflight_is_not_asked_for_a_required_token(posture: Posture) -> None:
    preflight = request(("origin", "https://a.example"), ("access-control-request-method", "GET"), method="OPTIONS")

    assert subject(judge(preflight, replace(RULE_A, required=True), posture=posture)) is None


def test_a_failure_that_is_kept_keeps_no_frame() -> None:
    prover = Prover({}, NOW, Posture.STRICT)
    for _ in range(2):  # the second is of the first one's parsing
        with pytest.raises(TokenError):
            prover.prove("x", RULE_A)
    (kept,) = prover._parsed.values()

    assert isinstance(kept, TokenError)
    assert kept.__traceback__ is None
    assert kept.__cause__ is kept.__context__ is None
