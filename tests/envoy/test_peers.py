"""Settings of the real Envoy against `--peer` and `--xfcc-mode`: what is right, and what an attacker makes of the rest.

`batch` is a workload of the mesh that wants to be `sleep`, or has stolen a token that is bound to sleep's certificate.
Where a wrong setting lets it, the test says 200: that is the claim of docs/peers.md, held by a real attack.
"""

import base64
import contextlib
import datetime as dt
import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from countersign.core.identity import PeerRules, PeerSource, XfccMode
from countersign.core.jwt_rule import RemoteKeys
from countersign.core.spiffe import SpiffeId
from countersign.mesh.certificates import thumbprint, write_certificates
from countersign.mesh.client import Door, send
from countersign.mesh.envoy import Envoy
from countersign.mesh.issuer import Issuer
from countersign.mesh.relocate import Places
from countersign.mesh.upstream import upstream
from countersign.snapshot import Mesh
from countersign.tokens.keys import KeySet

from tests.edge.serving import Serving, snapshot

pytestmark = pytest.mark.envoy

CONFIGURATION: Final = (Path(__file__).parents[2] / "envoy" / "httpbin.yaml").read_text()
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


class Sidecar:
    """httpbin's sidecar with a few settings changed, and a Countersign that reads peers by these rules."""

    def __init__(self, directory: Path, envoy: Envoy) -> None:
        self.certificates = directory / "certs"
        self._envoy = envoy

    def get(self, caller: str, path: str, *headers: tuple[str, str]) -> tuple[int, str]:
        """The status that the caller gets, and the reason that Countersign gave; ``caller`` is empty for plaintext."""
        port = self._envoy.port("inbound")
        door = Door(name="sidecar", port=port, certificates=self.certificates / caller if caller else None)
        request_id = str(uuid.uuid4())
        status = send(door, "GET", path, (("x-request-id", request_id), *headers)).status
        return status, self._envoy.access_log(request_id)["ext_authz"]["reason"]

    def sha256(self, workload: str) -> str:
        return base64.urlsafe_b64decode(f"{self.thumbprint(workload)}=").hex()

    def thumbprint(self, workload: str) -> str:
        return thumbprint(self.certificates / workload / "tls.crt")

    def sleeps_token(self) -> tuple[str, str]:
        """A token that is bound to sleep's certificate."""
        claims = {"sub": "sleep", "exp": time.time() + 600, "cnf": {"x5t#S256": self.thumbprint("sleep")}}
        return ("authorization", f"Bearer {ISSUER.sign(claims)}")


@contextlib.contextmanager
def sidecar(
    directory: Path,
    details: str,
    rules: PeerRules = CROSS_CHECK,
    *,
    more: tuple[tuple[str, str], ...] = (),
    hops: int = 0,
) -> Iterator[Sidecar]:
    """Bring it up with ``forward_client_cert_details`` and further replacements in the committed configuration."""
    for name in ("run", "certs"):
        (directory / name).mkdir()
    write_certificates(directory / "certs", dt.datetime.now(dt.UTC))
    text = CONFIGURATION
    for before, after in (
        ("forward_client_cert_details: APPEND_FORWARD", f"forward_client_cert_details: {details}"),
        *more,
    ):
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    changed = directory / "httpbin.yaml"
    changed.write_text(text)
    current = snapshot(POLICIES, KEYS, Mesh(namespace="apps", peer=rules, remote_ip_hops=hops))
    with contextlib.ExitStack() as parts:
        application = parts.enter_context(upstream("127.0.0.1", 0))
        any_port = ("127.0.0.1", 0)
        places = Places(
            addresses={
                "127.0.0.1:9901": any_port,
                "0.0.0.0:15006": any_port,
                "upstream:8080": ("127.0.0.1", application.port),
            },
            paths={"/run/countersign": directory / "run", "/run/mesh/certs": directory / "certs"},
        )
        parts.enter_context(Serving(directory / "run", lambda: current))
        envoy = parts.enter_context(Envoy(changed, places, directory))
        envoy.wait_ready()
        yield Sidecar(directory, envoy)


PRESENT: Final = (
    ("include_tls_session: true", "include_tls_session: true\n{}include_peer_certificate: true".format(" " * 22)),
)
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
    with sidecar(tmp_path, details, FROM_XFCC) as envoy:
        assert envoy.get("batch", "/sleep", (_XFCC, f"URI={SLEEP}")) == ALLOWED  # the attack
        assert (envoy.get("", "/sleep", (_XFCC, f"URI={SLEEP}")) == ALLOWED) is (details == ALWAYS)


@pytest.mark.parametrize("details", [FORWARD, ALWAYS])
def test_the_cross_check_finds_it(tmp_path: Path, details: str) -> None:
    with sidecar(tmp_path, details, CROSS_CHECK) as envoy:
        assert envoy.get("batch", "/sleep", (_XFCC, f"URI={SLEEP}")) == (403, "peer-mismatch")
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
        (APPEND, CROSS_CHECK, ()),
        (APPEND, CROSS_CHECK, PRESENT),
        (SET, ONE_ELEMENT, ()),
        (SANITIZE, CROSS_CHECK, PRESENT),
        (SANITIZE, BY_PRINCIPAL, PRESENT),
        (APPEND, FROM_XFCC, PRESENT),
    ],
)
def test_with_the_right_settings_a_bound_token_is_sleeps_alone(
    tmp_path: Path, details: str, rules: PeerRules, more: tuple[tuple[str, str], ...]
) -> None:
    with sidecar(tmp_path, details, rules, more=more) as envoy:
        token = envoy.sleeps_token()

        assert envoy.get("sleep", "/any", token) == ALLOWED
        assert envoy.get("batch", "/any", token) == (401, "token-bound-to-other-certificate")
        forged = (_XFCC, f"Hash={envoy.sha256('sleep')};URI={BATCH}")
        assert envoy.get("batch", "/any", token, forged) == (401, "token-bound-to-other-certificate")


@pytest.mark.parametrize(
    ("details", "rules", "more"),
    [(SANITIZE, CROSS_CHECK, ()), (APPEND, CROSS_CHECK, NO_URI), (APPEND, BY_PRINCIPAL, ())],
)
def test_without_a_proven_hash_a_bound_token_is_nobodys(
    tmp_path: Path, details: str, rules: PeerRules, more: tuple[tuple[str, str], ...]
) -> None:
    with sidecar(tmp_path, details, rules, more=more) as envoy:
        assert envoy.get("sleep", "/any") == ALLOWED
        assert envoy.get("sleep", "/any", envoy.sleeps_token()) == (401, "token-bound-without-certificate")


def test_a_hash_that_envoy_only_forwards_frees_a_stolen_token(tmp_path: Path) -> None:
    with sidecar(tmp_path, FORWARD, CROSS_CHECK) as envoy:
        forged = (_XFCC, f"Hash={envoy.sha256('sleep')};URI={BATCH}")

        assert envoy.get("batch", "/any", envoy.sleeps_token(), forged) == ALLOWED  # the attack


def test_the_presented_certificate_convicts_it(tmp_path: Path) -> None:
    with sidecar(tmp_path, FORWARD, CROSS_CHECK, more=PRESENT) as envoy:
        forged = (_XFCC, f"Hash={envoy.sha256('sleep')};URI={BATCH}")

        assert envoy.get("batch", "/any") == ALLOWED
        assert envoy.get("batch", "/any", envoy.sleeps_token(), forged) == (403, "peer-certificate-mismatch")


# --- whose address it is ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [(), BEHIND_PROXY])
def test_without_trusted_hops_no_client_writes_its_own_address(
    tmp_path: Path, more: tuple[tuple[str, str], ...]
) -> None:
    with sidecar(tmp_path, APPEND, more=more) as envoy:
        assert envoy.get("sleep", "/near", ("x-forwarded-for", "192.0.2.1")) == NOT_HIS


@pytest.mark.parametrize(("more", "written"), [((), "192.0.2.1"), (BEHIND_PROXY, "192.0.2.1, 10.0.0.1")])
def test_with_a_trusted_hop_too_many_a_client_does(
    tmp_path: Path, more: tuple[tuple[str, str], ...], written: str
) -> None:
    with sidecar(tmp_path, APPEND, more=more, hops=1) as envoy:
        assert envoy.get("sleep", "/near", ("x-forwarded-for", written)) == ALLOWED  # the attack
        assert envoy.get("sleep", "/near") == NOT_HIS
