"""The pipeline where both proofs meet: the peer's certificate, and tokens that are only its own."""

import base64
import json
from dataclasses import replace
from typing import Any, Final

import pytest
from countersign.authorize import authorize
from countersign.certificates.presented import present
from countersign.core.decision import Allow, Decision, Deny, Reason
from countersign.core.facts import RequestFacts
from countersign.core.jwt_rule import RemoteKeys
from countersign.core.posture import Posture
from countersign.mesh.issuer import Issuer
from countersign.snapshot import Mesh
from countersign.tokens.cache import TokenCache
from countersign.tokens.keys import KeySet

from tests.support.certificates import Issued, issue
from tests.support.requests import (
    NOW,
    WEB,
    XFCC,
    authorization,
    decide,
    facts,
    peer_authentication,
    request_authentication,
    settled,
    snapshot,
)

ALLOW_ALL: Final = authorization("{rules: [{}]}", "everything")
USERS: Final = request_authentication(
    "{jwtRules: [{issuer: https://idp.example, jwksUri: https://idp.example/jwks.json}]}"
)
FORBIDDEN: Final = (403, "RBAC: access denied")
ISSUER: Final = Issuer("https://idp.example")
KEYS: Final = {RemoteKeys("https://idp.example/jwks.json"): KeySet.parse(json.dumps(ISSUER.jwks()))}
LEAF: Final = issue(WEB)
CNF: Final = {"x5t#S256": base64.urlsafe_b64encode(LEAF.sha256).decode().rstrip("=")}
HASHED: Final = f"Hash={LEAF.sha256.hex()};URI={WEB}"


def _denied(decision: Decision, reason: Reason, answer: tuple[int, str]) -> Deny:
    assert isinstance(decision, Deny), decision
    assert decision.reason is reason
    assert (decision.status, decision.body) == answer
    return decision


def _allowed(decision: Decision) -> None:
    assert isinstance(decision, Allow), decision


def _decide(
    request: RequestFacts,
    policies: str = USERS,
    posture: Posture = Posture.STRICT,
    tokens: TokenCache | None = None,
) -> Decision:
    current = replace(snapshot(policies, Mesh(posture=posture), KEYS), tokens=tokens)
    return settled(authorize(request, current, NOW, may_wait=False))


def _token(**claims: Any) -> tuple[str, str]:
    return ("authorization", f"Bearer {ISSUER.sign({'sub': 'web', 'exp': NOW + 600, **claims})}")


def _presenting(leaf: Issued | str, *pairs: tuple[str, str], principal: str = WEB) -> RequestFacts:
    text = leaf if isinstance(leaf, str) else present(leaf.pem)
    plain = facts(*pairs, principal=principal)
    return replace(plain, source=replace(plain.source, certificate=text))


def test_the_certificate_that_envoy_presents_must_be_the_one_of_principal_and_header() -> None:
    _allowed(decide(_presenting(LEAF), ALLOW_ALL))
    _allowed(decide(_presenting(LEAF, (XFCC, HASHED)), ALLOW_ALL))
    wrong = (
        _presenting(LEAF, (XFCC, f"Hash={'0' * 64};URI={WEB}")),
        _presenting(issue("spiffe://cluster.local/ns/edge/sa/evil")),
        _presenting(LEAF, principal=""),
    )
    for request in wrong:
        _denied(decide(request, ALLOW_ALL), Reason.PEER_CERTIFICATE_MISMATCH, FORBIDDEN)


@pytest.mark.parametrize("leaf", ["garbage", issue(WEB, "https://other.example/"), issue(WEB, ca=True)])
def test_a_certificate_that_cannot_be_a_workloads_is_refused_and_not_repeated(leaf: Issued | str) -> None:
    denied = _denied(decide(_presenting(leaf), ALLOW_ALL), Reason.PEER_CERTIFICATE_MALFORMED, FORBIDDEN)

    assert "garbage" not in denied.detail


def test_on_a_port_without_mtls_no_certificate_is_looked_at() -> None:
    disabled = peer_authentication("{mtls: {mode: DISABLE}}")

    _allowed(decide(_presenting("garbage"), ALLOW_ALL + disabled))


@pytest.mark.parametrize("posture", Posture)
def test_a_confirmed_token_passes_over_its_own_connection_only(posture: Posture) -> None:
    bound = _token(cnf=CNF)

    _allowed(_decide(facts(bound, (XFCC, HASHED)), posture=posture))
    _allowed(_decide(_presenting(LEAF, bound), posture=posture))
    other = _decide(_presenting(issue(WEB), bound), posture=posture)
    denied = _denied(other, Reason.TOKEN_OTHER_CERTIFICATE, (401, "Jwt is bound to another certificate"))
    assert dict(denied.headers)["www-authenticate"].endswith('error="invalid_token"')
    unproven = _decide(facts(bound), posture=posture)
    _denied(unproven, Reason.TOKEN_WITHOUT_CERTIFICATE, (401, "Jwt is bound to a certificate"))
    malformed = _decide(facts(_token(cnf="x")), posture=posture)
    _denied(malformed, Reason.TOKEN_CONFIRMATION_MALFORMED, (401, "Jwt confirmation [cnf] is malformed"))


def test_another_confirmation_is_refused_by_strict_and_left_by_istio() -> None:
    request = facts(_token(cnf={"jkt": "x"}))
    told = (401, "Jwt confirmation [cnf] is not supported")

    _denied(_decide(request), Reason.TOKEN_CONFIRMATION_UNSUPPORTED, told)
    _allowed(_decide(request, posture=Posture.ISTIO))


@pytest.mark.parametrize("posture", Posture)
def test_the_annotation_binds_tokens_at_every_request_again(posture: Posture) -> None:
    """Also those that are remembered as verified."""
    annotated = "{name: users, namespace: apps, annotations: {countersign.io/token-binding: azp == peer.id}}"
    policies = USERS.replace("{name: users, namespace: apps}", annotated)
    assert annotated in policies
    mine, tokens = _token(azp=WEB), TokenCache()
    for _ in range(3):
        _allowed(_decide(facts(mine), policies, posture, tokens))
        stolen = _decide(facts(mine, principal="spiffe://cluster.local/ns/edge/sa/evil"), policies, posture, tokens)
        denied = _denied(stolen, Reason.TOKEN_OTHER_PEER, (401, "Jwt is bound to another workload"))
        assert denied.policy is not None
        assert denied.policy.id == "RequestAuthentication[apps/users]"
        assert "`azp == peer.id` does not hold" in denied.detail
        nobody = _decide(facts(mine, principal=""), policies, posture, tokens)
        _denied(nobody, Reason.TOKEN_WITHOUT_PEER, (401, "Jwt is bound to a workload"))
    assert len(tokens) == 1
    nameless = _decide(facts(_token()), policies, posture, tokens)
    _denied(nameless, Reason.TOKEN_NAMES_NO_PEER, (401, "Jwt does not say which workload it is for"))
