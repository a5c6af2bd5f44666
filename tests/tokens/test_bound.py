"""Verified tokens against the connection: every token, every rule that could take it, at each request."""

import base64
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import pytest
from countersign.core.binding import Binding, PeerPart
from countersign.core.decision import PolicyRef, Reason
from countersign.core.identity import NOBODY, Peer
from countersign.core.jwt_rule import HeaderLocation, JwtRule, KeySource
from countersign.core.posture import Posture
from countersign.core.spiffe import SpiffeId
from countersign.tokens.authenticate import Authenticated, TokenRefused, authenticate
from countersign.tokens.bound import refuse_unbound
from countersign.tokens.keys import KeySet

from tests.tokens.material import AUDIENCE, CLAIMS, NOW, REMOTE, bearer, jwk, key_set, request, rule, sign

SHA256: Final = bytes(range(32))
SLEEP: Final = Peer(id=SpiffeId.parse("spiffe://cluster.local/ns/apps/sa/sleep"), certificate=SHA256)
BATCH: Final = Peer(id=SpiffeId.parse("spiffe://cluster.local/ns/legacy/sa/batch"), certificate=bytes(32))
KEYS: Final[Mapping[KeySource, KeySet]] = {REMOTE: key_set(jwk("ES256"))}
BOUND: Final = (Binding(("azp",), PeerPart.SERVICE_ACCOUNT, "azp == peer.service_account", "policy.yaml:5"),)
RULE: Final = rule()
BOUND_RULE: Final = rule(bindings=BOUND)
CNF: Final = {"cnf": {"x5t#S256": base64.urlsafe_b64encode(SHA256).decode().rstrip("=")}}
BOTH: Final = pytest.mark.parametrize("posture", Posture)


def _token(**claims: Any) -> str:
    return sign({**CLAIMS, **claims}, algorithm="ES256")


def _judge(http: Any, *rules: JwtRule, peer: Peer = SLEEP, posture: Posture = Posture.STRICT) -> TokenRefused | None:
    user = authenticate(http, rules, KEYS, NOW, posture, may_wait=False)
    assert isinstance(user, Authenticated), user
    return refuse_unbound(user, rules, peer, posture)


def _reason(http: Any, *rules: JwtRule, peer: Peer = SLEEP, posture: Posture = Posture.STRICT) -> Reason | None:
    refused = _judge(http, *rules, peer=peer, posture=posture)
    return None if refused is None else refused.reason


def test_no_token_is_bound_to_nobody() -> None:
    assert _judge(request(), BOUND_RULE, peer=NOBODY) is None
    assert _judge(bearer(_token()), RULE, peer=NOBODY) is None


@BOTH
def test_a_confirmed_token_passes_over_its_own_connection_only(posture: Posture) -> None:
    http = bearer(_token(**CNF))

    assert _reason(http, RULE, posture=posture) is None
    assert _reason(http, RULE, peer=BATCH, posture=posture) is Reason.TOKEN_OTHER_CERTIFICATE
    assert _reason(http, RULE, peer=NOBODY, posture=posture) is Reason.TOKEN_WITHOUT_CERTIFICATE
    unproven = replace(SLEEP, certificate=None)
    assert _reason(http, RULE, peer=unproven, posture=posture) is Reason.TOKEN_WITHOUT_CERTIFICATE


@BOTH
def test_a_token_of_a_bound_rule_passes_from_its_own_workload_only(posture: Posture) -> None:
    http = bearer(_token(azp="sleep"))

    assert _reason(http, BOUND_RULE, posture=posture) is None
    assert _reason(http, BOUND_RULE, peer=BATCH, posture=posture) is Reason.TOKEN_OTHER_PEER
    assert _reason(http, BOUND_RULE, peer=NOBODY, posture=posture) is Reason.TOKEN_WITHOUT_PEER
    assert _reason(bearer(_token()), BOUND_RULE, posture=posture) is Reason.TOKEN_NAMES_NO_PEER


def test_a_refusal_is_a_401_of_the_rule_and_the_line_that_refuses() -> None:
    """RFC 8705 section 3: 401 and invalid_token."""
    confirmed = _judge(bearer(_token(**CNF)), RULE, peer=BATCH)
    bound = _judge(bearer(_token(azp="sleep")), BOUND_RULE, peer=BATCH)

    assert confirmed == TokenRefused(
        reason=Reason.TOKEN_OTHER_CERTIFICATE,
        status=401,
        text="Jwt is bound to another certificate",
        detail="Jwt is bound to another certificate",
        policy=PolicyRef(id="RequestAuthentication[ns/name]", source="policy.yaml:1"),
    )
    assert bound == TokenRefused(
        reason=Reason.TOKEN_OTHER_PEER,
        status=401,
        text="Jwt is bound to another workload",
        detail="Jwt is bound to another workload: `azp == peer.service_account` does not hold",
        policy=PolicyRef(id="RequestAuthentication[ns/name]", source="policy.yaml:5"),
    )


@pytest.mark.parametrize("bad", [CNF, {"azp": "batch"}])
def test_of_several_tokens_each_must_be_the_peers(bad: dict[str, Any]) -> None:
    places = (HeaderLocation("x-a"), HeaderLocation("x-b"))
    bound = rule(bindings=BOUND, from_headers=places)
    good = _token(azp="sleep")
    stolen = _token(**{"azp": "sleep", **bad})
    peer = replace(SLEEP, certificate=bytes(32))

    assert _reason(request(("x-a", good), ("x-b", good)), bound, peer=peer) is None
    for http in (request(("x-a", stolen), ("x-b", good)), request(("x-a", good), ("x-b", stolen))):
        assert _reason(http, bound, peer=peer) in {Reason.TOKEN_OTHER_CERTIFICATE, Reason.TOKEN_OTHER_PEER}


def test_no_order_of_rules_frees_a_token() -> None:
    http = bearer(_token(azp="sleep"))

    for rules in ((RULE, BOUND_RULE), (BOUND_RULE, RULE), (rule("", bindings=BOUND), RULE)):
        assert _reason(http, *rules) is None
        assert _reason(http, *rules, peer=BATCH) is Reason.TOKEN_OTHER_PEER


def test_a_rule_for_other_tokens_binds_none_of_these() -> None:
    http = bearer(_token(azp="sleep"))
    elsewhere = rule("https://elsewhere.example", bindings=BOUND)
    other_audience = rule(bindings=BOUND, audiences=("other",))

    assert _reason(http, RULE, elsewhere, peer=BATCH) is None
    assert _reason(http, RULE, other_audience, peer=BATCH) is None
    assert _reason(http, RULE, rule(bindings=BOUND, audiences=(AUDIENCE,)), peer=BATCH) is Reason.TOKEN_OTHER_PEER


def test_a_rule_that_took_a_token_binds_it_however_its_audience_reads_afterwards() -> None:
    bound = rule(bindings=BOUND, audiences=("a b",), space_delimited_claims=frozenset({"aud"}))
    http = bearer(_token(azp="sleep", aud="a b"))

    assert _reason(http, bound) is None
    assert _reason(http, bound, peer=BATCH) is Reason.TOKEN_OTHER_PEER
