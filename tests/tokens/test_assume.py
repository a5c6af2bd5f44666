"""Claims that nobody signed: judged as a real token would be, but for the signature."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from countersign.core.decision import Reason
from countersign.core.jwt_rule import ClaimToHeader, HeaderLocation, JwtRule, KeySource
from countersign.core.posture import Posture
from countersign.tokens.assume import assume_claims, assume_signatures, parse_claims
from countersign.tokens.authenticate import Authenticated, TokenRefused
from countersign.tokens.jose import TokenError
from countersign.tokens.keys import KeySet

from tests.tokens.material import CLAIMS, ISSUER, NOW, bearer, inline, jwk, key_set, request, rule, sign

OTHER = "https://other.example"


def given(*rules: JwtRule, posture: Posture = Posture.STRICT, **changes: Any) -> Authenticated | TokenRefused:
    claims = {name: value for name, value in {**CLAIMS, **changes}.items() if value is not None}
    return assume_claims(parse_claims(json.dumps(claims)), request(), rules or (rule(),), NOW, posture)


def sent(token: str, *rules: JwtRule, keys: Mapping[KeySource, KeySet] | None = None) -> Authenticated | TokenRefused:
    return assume_signatures(bearer(token), rules or (rule(),), keys or {}, NOW, Posture.STRICT)


def test_given_claims_are_a_user() -> None:
    user = given(scope="a b")

    assert isinstance(user, Authenticated)
    assert user.token is not None
    assert (user.token.issuer, user.token.subject, user.token.claims["scope"]) == (ISSUER, "alice", ["a", "b"])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"iss": OTHER}, Reason.TOKEN_ISSUER),
        ({"iss": None}, Reason.TOKEN_ISSUER),
        ({"aud": "elsewhere"}, Reason.TOKEN_AUDIENCE),
        ({"exp": NOW - 61}, Reason.TOKEN_EXPIRED),
        ({"nbf": NOW + 61}, Reason.TOKEN_NOT_YET_VALID),
        ({"exp": 0}, Reason.TOKEN_NO_EXPIRY),
    ],
)
def test_given_claims_are_refused_like_a_token_that_says_the_same(changes: dict[str, Any], reason: Reason) -> None:
    refused = given(rule(audiences=("svc",)), **changes)

    assert isinstance(refused, TokenRefused)
    assert refused.reason is reason
    assert isinstance(given(rule(audiences=("svc",))), Authenticated)


def test_claims_by_hand_need_no_expiry() -> None:
    assert isinstance(given(exp=None), Authenticated)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"iss": 5}', '{"a": 1, "a": 2}', '{"aud": {}}', "\udcff"])
def test_claims_are_read_as_strictly_as_in_a_token(text: str) -> None:
    with pytest.raises(TokenError) as refused:
        parse_claims(text)

    assert refused.value.reason is Reason.TOKEN_MALFORMED
    assert parse_claims("{}").payload == {}


def test_the_rule_of_their_issuer_takes_them() -> None:
    outputs = (ClaimToHeader("x-user", "sub"),)
    user = given(rule(OTHER), rule(output_claim_to_headers=outputs))

    assert isinstance(user, Authenticated)
    assert user.mutations.set_headers == (("x-user", "alice"),)


@pytest.mark.parametrize(
    ("fields", "headers", "parameters"),
    [
        ({}, ("authorization",), ()),
        ({"from_headers": (HeaderLocation("x-jwt"),)}, ("x-jwt",), ()),
        ({"from_params": ("jwt",)}, (), ("jwt",)),
        ({"from_cookies": ("jwt",)}, (), ()),
    ],
)
def test_they_are_where_the_rule_looks_first(
    fields: dict[str, Any], headers: tuple[str, ...], parameters: tuple[str, ...]
) -> None:
    user = given(rule(**fields))

    assert isinstance(user, Authenticated)
    assert (user.mutations.remove_headers, user.mutations.remove_query_parameters) == (headers, parameters)


def test_where_no_token_is_looked_at_they_are_nobodys() -> None:
    token = parse_claims(json.dumps(CLAIMS))
    preflight = request(("origin", "a"), ("access-control-request-method", "GET"), method="OPTIONS")

    for user in (
        assume_claims(token, request(), (), NOW, Posture.STRICT),
        assume_claims(token, preflight, (rule(),), NOW, Posture.STRICT),
    ):
        assert isinstance(user, Authenticated)
        assert user.token is None


def test_a_token_whose_keys_are_elsewhere_is_taken_as_it_is() -> None:
    user = sent(sign(which=3))

    assert isinstance(user, Authenticated)
    assert user.token is not None
    assert user.token.subject == "alice"


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        (sign({**CLAIMS, "exp": NOW - 61}, algorithm="ES256"), Reason.TOKEN_EXPIRED),
        (sign({**CLAIMS, "iss": OTHER}, algorithm="ES256"), Reason.TOKEN_ISSUER),
        ("abc", Reason.TOKEN_MALFORMED),
        ("a.b.c", Reason.TOKEN_MALFORMED),
    ],
)
def test_but_not_if_it_would_be_refused_with_them(token: str, reason: Reason) -> None:
    refused = sent(token)

    assert isinstance(refused, TokenRefused)
    assert refused.reason is reason


def test_keys_that_are_there_are_used() -> None:
    fixed = rule(keys=inline(jwk("ES256")))
    keys = {fixed.keys: key_set(jwk("ES256"))}
    forged = sent(sign(algorithm="ES256", which=1, header={"alg": "ES256"}), fixed, keys=keys)

    assert isinstance(forged, TokenRefused)
    assert forged.reason is Reason.TOKEN_SIGNATURE
    assert isinstance(sent(sign(algorithm="ES256"), fixed, keys=keys), Authenticated)


def test_a_request_without_token_has_no_user() -> None:
    user = assume_signatures(request(), (rule(),), {}, NOW, Posture.STRICT)

    assert isinstance(user, Authenticated)
    assert user.token is None
