"""Certificates that Istio would not let in, on a listener that does: what Envoy makes of them, and what Countersign."""

from collections.abc import Iterator
from typing import Final

import pytest

from tests.envoy.judge.arena import Arena, Verdict
from tests.envoy.judge.client import Request
from tests.envoy.judge.identities import FOREIGN, MALFORMED, NAMED, NAMELESS
from tests.envoy.judge.matchers import Json
from tests.envoy.judge.peers import NATIVE, NOBODY
from tests.envoy.judge.policy_set import PolicySet
from tests.envoy.judge.processes import POSTURES

pytestmark = pytest.mark.envoy

ANYBODY: Final = "anybody"
NAMED_BY_ANYTHING: Final = "named-by-anything"
STRICT: Final = "strict-mode"
DISABLED: Final = "disabled-mode"


def _set(name: str, kind: str, spec: Json) -> PolicySet:
    metadata = {"name": "only", "namespace": name}
    return PolicySet(
        name=name,
        documents=[{"apiVersion": "security.istio.io/v1", "kind": kind, "metadata": metadata, "spec": spec}],
    )


SETS: Final = [
    _set(ANYBODY, "AuthorizationPolicy", {"rules": [{}]}),
    _set(NAMED_BY_ANYTHING, "AuthorizationPolicy", {"rules": [{"from": [{"source": {"principals": ["*"]}}]}]}),
    _set(STRICT, "PeerAuthentication", {"mtls": {"mode": "STRICT"}}),
    _set(DISABLED, "PeerAuthentication", {"mtls": {"mode": "DISABLE"}}),
]


@pytest.fixture(scope="module")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    with Arena(SETS, tmp_path_factory.mktemp("arena")) as arena:
        yield arena


def _ask(arena: Arena, arm: str, policies: str, caller: str) -> Verdict:
    return arena.ask(arm, policies, Request(caller=caller, listener="verbatim"))


@pytest.mark.parametrize("caller", MALFORMED)
def test_a_certificate_with_other_uris_than_one_spiffe_id_is_refused(arena: Arena, caller: str) -> None:
    # For Envoy any name is a principal; two of these are of no mesh of Istio's.
    assert _ask(arena, NATIVE, NAMED_BY_ANYTHING, caller).allowed is (caller not in ("upper", "domain"))
    for posture in POSTURES:
        for policies in (ANYBODY, NAMED_BY_ANYTHING, STRICT):
            refused = _ask(arena, posture, policies, caller)
            assert (refused.status, refused.body) == (403, "RBAC: access denied")
        assert _ask(arena, posture, DISABLED, caller).allowed  # where nobody has an identity


@pytest.mark.parametrize("caller", NAMELESS)
def test_a_certificate_without_a_uri_is_as_good_as_none(arena: Arena, caller: str) -> None:
    assert _ask(arena, NATIVE, ANYBODY, caller).allowed
    assert not _ask(arena, NOBODY, NAMED_BY_ANYTHING, caller).allowed
    for posture in POSTURES:
        assert _ask(arena, posture, ANYBODY, caller).allowed
        assert not _ask(arena, posture, NAMED_BY_ANYTHING, caller).allowed
        assert not _ask(arena, posture, STRICT, caller).allowed


def test_for_envoy_a_dns_name_is_a_principal(arena: Arena) -> None:
    assert _ask(arena, NATIVE, NAMED_BY_ANYTHING, "dns").allowed


@pytest.mark.parametrize("caller", FOREIGN)
def test_a_workload_of_a_foreign_trust_domain_is_refused(arena: Arena, caller: str) -> None:
    for arm in (NATIVE, *POSTURES):
        assert not _ask(arena, arm, ANYBODY, caller).allowed
        assert _ask(arena, arm, DISABLED, caller).allowed


@pytest.mark.parametrize("caller", NAMED)
def test_a_dns_name_beside_the_spiffe_id_changes_nothing(arena: Arena, caller: str) -> None:
    for arm in (NATIVE, *POSTURES):
        assert _ask(arena, arm, NAMED_BY_ANYTHING, caller).allowed
        assert _ask(arena, arm, STRICT, caller).allowed
