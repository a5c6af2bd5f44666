"""Settings of the real Envoy against `--peer` and `--xfcc-mode`: what is right, and what an attacker makes of the rest.

`batch` is a workload of the mesh that wants to be `sleep`, or has stolen a token that is bound to sleep's certificate.
Where a wrong setting lets it, the test says 200: that is the claim of docs/peers.md, held by a real attack.
"""

import base64
import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from countersign.core.identity import PeerRules, PeerSource, XfccMode
from countersign.core.jwt_rule import RemoteKeys
from countersign.core.spiffe import SpiffeId
from countersign.mesh.issuer import Issuer
from countersign.snapshot import Mesh
from countersign.tokens.keys import KeySet

from tests.edge.serving import snapshot
from tests.envoy.sidecar import Change, Sidecar, changed, sidecars

pytestmark = pytest.mark.envoy

SLEEP: Final = "spiffe://cluster.local/ns/apps/sa/sleep"
BATCH: Final = "spiffe://cluster.local/ns/legacy/sa/batch"
ISSUER: Final = Issuer("https://idp.example")
KEYS: Final[dict[Any, KeySet]] = {RemoteKeys("https://idp.example/jwks"): KeySet.parse(json.dumps(ISSUER.jwks()))}
# /sleep is sleep's alone, /any is for everybody of the mesh, and /near for callers from one address.
POLICIES: Final = """\
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: users, namespace: apps}
spec: {jwtRules: [{issuer: https://idp.example, jwksUri: https://idp.example/jwks}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: sleep, namespace: apps}
spec:
  rules:
  - from: [{source: {principals: [cluster.local/ns/apps/sa/sleep]}}]
    to: [{operation: {paths: [/sleep]}}]
  - from: [{source: {principals: ["*"]}}]
    to: [{operation: {paths: [/any]}}]
  - from: [{source: {remoteIpBlocks: [192.0.2.1]}}]
    to: [{operation: {paths: [/near]}}]
"""

FORWARD, APPEND, SET, SANITIZE = "FORWARD_ONLY", "APPEND_FORWARD", "SANITIZE_SET", "SANITIZE"
ALWAYS: Final = "ALWAYS_FORWARD_ONLY"
CROSS_CHECK: Final = PeerRules()
BY_PRINCIPAL: Final = PeerRules(source=PeerSource.PRINCIPAL)
FROM_XFCC: Final = PeerRules(source=PeerSource.XFCC)
BEHIND_ONE: Final = PeerRules(source=PeerSource.XFCC, trusted_hops=1)
ONE_ELEMENT: Final = PeerRules(xfcc_mode=XfccMode.SANITIZE_SET)


class Caller(Sidecar):
    """A sidecar, and what an attacker knows of sleep."""

    def sha256(self, workload: str) -> str:
        return base64.urlsafe_b64decode(f"{self.thumbprint(workload)}=").hex()

    def sleeps_token(self) -> tuple[str, str]:
        """A token that is bound to sleep's certificate."""
        claims = {"sub": "sleep", "exp": time.time() + 600, "cnf": {"x5t#S256": self.thumbprint("sleep")}}
        return ("authorization", f"Bearer {ISSUER.sign(claims)}")


@contextlib.contextmanager
def sidecar(
    directory: Path, details: str, rules: PeerRules = CROSS_CHECK, *, more: tuple[Change, ...] = (), hops: int = 0
) -> Iterator[Caller]:
    """Bring it up with ``forward_client_cert_details`` and further changes of the committed configuration."""
    text = changed(("forward_client_cert_details: APPEND_FORWARD", f"forward_client_cert_details: {details}"), *more)
    current = snapshot(POLICIES, KEYS, Mesh(namespace="apps", peer=rules, remote_ip_hops=hops))
    with sidecars(directory, [text], current) as (only,):
        yield Caller(only.certificates, only.envoy)


WITHHELD: Final = (("include_peer_certificate: true", "include_peer_certificate: false"),)
NO_URI: Final = (("{subject: true, uri: true, dns: true}", "{subject: true, uri: false, dns: true}"),)
BEHIND_PROXY: Final = (("use_remote_address: true", "use_remote_address: false"),)
ALLOWED: Final = (200, "allow-rule-matched")
NOT_HIS: Final = (403, "no-allow-rule-matched")
_XFCC: Final = "x-forwarded-client-cert"


# --- whose request it is ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("details", "rules"),
    [(APPEND, CROSS_CHECK), (SET, ONE_ELEMENT), (SANITIZE, BY_PRINCIPAL), (SANITIZE, CROSS_CHECK), (APPEND, FROM_XFCC)],
)
def test_with_the_right_settings_everybody_is_himself_whatever_he_writes(
    tmp_path: Path, details: str, rules: PeerRules
) -> None:
    with sidecar(tmp_path, details, rules) as envoy:
        forged = (_XFCC, f"Hash={envoy.sha256('sleep')};URI={SLEEP}")

        assert envoy.get("sleep", "/sleep") == ALLOWED
        assert envoy.get("batch", "/sleep", forged) == NOT_HIS
        assert envoy.get("", "/sleep", forged) == NOT_HIS


@pytest.mark.parametrize("details", [FORWARD, ALWAYS])
def test_a_header_that_envoy_only_forwards_makes_anybody_sleep_under_peer_xfcc(tmp_path: Path, details: str) -> None:
    with sidecar(tmp_path, details, FROM_XFCC, more=WITHHELD) as envoy:
        assert envoy.get("batch", "/sleep", (_XFCC, f"URI={SLEEP}")) == ALLOWED  # the attack
        assert (envoy.get("", "/sleep", (_XFCC, f"URI={SLEEP}")) == ALLOWED) is (details == ALWAYS)


def test_the_presented_certificate_finds_who_has_one(tmp_path: Path) -> None:
    with sidecar(tmp_path, ALWAYS, FROM_XFCC) as envoy:
        assert envoy.get("batch", "/sleep", (_XFCC, f"URI={SLEEP}")) == (403, "peer-certificate-mismatch")
        assert envoy.get("", "/sleep", (_XFCC, f"URI={SLEEP}")) == ALLOWED  # the attack, without a certificate


@pytest.mark.parametrize("details", [FORWARD, ALWAYS])
@pytest.mark.parametrize(("more", "reason"), [(WITHHELD, "peer-mismatch"), ((), "peer-certificate-mismatch")])
def test_the_cross_check_finds_it(tmp_path: Path, details: str, more: tuple[Change, ...], reason: str) -> None:
    with sidecar(tmp_path, details, CROSS_CHECK, more=more) as envoy:
        assert envoy.get("batch", "/sleep", (_XFCC, f"URI={SLEEP}")) == (403, reason)
        assert envoy.get("", "/sleep", (_XFCC, f"URI={SLEEP}")) == NOT_HIS


def test_sanitize_set_in_the_flag_and_append_forward_in_envoy_refuses_who_sends_a_header(tmp_path: Path) -> None:
    with sidecar(tmp_path, APPEND, ONE_ELEMENT) as envoy:
        assert envoy.get("sleep", "/sleep") == ALLOWED
        assert envoy.get("sleep", "/sleep", (_XFCC, f"URI={SLEEP}")) == (403, "peer-malformed")


def test_trusted_hops_trust_whoever_reaches_the_listener(tmp_path: Path) -> None:
    with sidecar(tmp_path, APPEND, BEHIND_ONE) as envoy:
        assert envoy.get("batch", "/sleep", (_XFCC, f"URI={SLEEP}")) == ALLOWED  # the attack, past the gateway
        assert envoy.get("batch", "/sleep") == (403, "peer-malformed")


def test_a_trusted_proxy_that_is_named_is_the_only_one(tmp_path: Path) -> None:
    """Here sleep is also the gateway: nobody else may say who his peer was."""
    with sidecar(tmp_path, APPEND, replace(BEHIND_ONE, trusted_proxies=(SpiffeId.parse(SLEEP),))) as envoy:
        assert envoy.get("sleep", "/sleep", (_XFCC, f"URI={SLEEP}")) == ALLOWED
        assert envoy.get("batch", "/sleep", (_XFCC, f"URI={SLEEP}")) == (403, "peer-untrusted-proxy")
        assert envoy.get("batch", "/sleep") == (403, "peer-untrusted-proxy")


# --- whose token it is ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("details", "rules", "more"),
    [
        (APPEND, CROSS_CHECK, WITHHELD),
        (APPEND, CROSS_CHECK, ()),
        (SET, ONE_ELEMENT, WITHHELD),
        (SANITIZE, CROSS_CHECK, ()),
        (SANITIZE, BY_PRINCIPAL, ()),
        (APPEND, FROM_XFCC, ()),
    ],
)
def test_with_the_right_settings_a_bound_token_is_sleeps_alone(
    tmp_path: Path, details: str, rules: PeerRules, more: tuple[Change, ...]
) -> None:
    with sidecar(tmp_path, details, rules, more=more) as envoy:
        token = envoy.sleeps_token()

        assert envoy.get("sleep", "/any", token) == ALLOWED
        assert envoy.get("batch", "/any", token) == (401, "token-bound-to-other-certificate")
        forged = (_XFCC, f"Hash={envoy.sha256('sleep')};URI={BATCH}")
        assert envoy.get("batch", "/any", token, forged) == (401, "token-bound-to-other-certificate")


@pytest.mark.parametrize(
    ("details", "rules", "more"),
    [(SANITIZE, CROSS_CHECK, WITHHELD), (APPEND, CROSS_CHECK, NO_URI + WITHHELD), (APPEND, BY_PRINCIPAL, WITHHELD)],
)
def test_without_a_proven_hash_a_bound_token_is_nobodys(
    tmp_path: Path, details: str, rules: PeerRules, more: tuple[Change, ...]
) -> None:
    with sidecar(tmp_path, details, rules, more=more) as envoy:
        assert envoy.get("sleep", "/any") == ALLOWED
        assert envoy.get("sleep", "/any", envoy.sleeps_token()) == (401, "token-bound-without-certificate")


def test_a_hash_that_envoy_only_forwards_frees_a_stolen_token(tmp_path: Path) -> None:
    with sidecar(tmp_path, FORWARD, CROSS_CHECK, more=WITHHELD) as envoy:
        forged = (_XFCC, f"Hash={envoy.sha256('sleep')};URI={BATCH}")

        assert envoy.get("batch", "/any", envoy.sleeps_token(), forged) == ALLOWED  # the attack


def test_the_presented_certificate_convicts_it(tmp_path: Path) -> None:
    with sidecar(tmp_path, FORWARD, CROSS_CHECK) as envoy:
        forged = (_XFCC, f"Hash={envoy.sha256('sleep')};URI={BATCH}")

        assert envoy.get("batch", "/any") == ALLOWED
        assert envoy.get("batch", "/any", envoy.sleeps_token(), forged) == (403, "peer-certificate-mismatch")


# --- whose address it is ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [(), BEHIND_PROXY])
def test_without_trusted_hops_no_client_writes_its_own_address(tmp_path: Path, more: tuple[Change, ...]) -> None:
    with sidecar(tmp_path, APPEND, more=more) as envoy:
        assert envoy.get("sleep", "/near", ("x-forwarded-for", "192.0.2.1")) == NOT_HIS


@pytest.mark.parametrize(("more", "written"), [((), "192.0.2.1"), (BEHIND_PROXY, "192.0.2.1, 10.0.0.1")])
def test_with_a_trusted_hop_too_many_a_client_does(tmp_path: Path, more: tuple[Change, ...], written: str) -> None:
    with sidecar(tmp_path, APPEND, more=more, hops=1) as envoy:
        assert envoy.get("sleep", "/near", ("x-forwarded-for", written)) == ALLOWED  # the attack
        assert envoy.get("sleep", "/near") == NOT_HIS
