"""Tokens of one workload: the hash in `cnf`, and claims that name the peer. Each refusal beside what passes."""

import base64
import hashlib
from typing import Any, Final

import pytest
from countersign.core.binding import Binding, BindingError, PeerPart, hold_binding, hold_confirmation
from countersign.core.decision import Reason
from countersign.core.posture import Posture
from countersign.core.spiffe import SpiffeId
from hypothesis import given
from hypothesis import strategies as st

SHA256: Final = hashlib.sha256(b"a certificate").digest()
THUMBPRINT: Final = base64.urlsafe_b64encode(SHA256).decode().rstrip("=")
SLEEP: Final = SpiffeId.parse("spiffe://cluster.local/ns/apps/sa/sleep")
BOTH: Final = pytest.mark.parametrize("posture", Posture)
STRICT, ISTIO = Posture.STRICT, Posture.ISTIO


def _confirmation(cnf: object, certificate: bytes | None = SHA256, posture: Posture = STRICT) -> Reason | None:
    refused: BindingError | None = None
    try:
        hold_confirmation({"sub": "alice", "cnf": cnf}, certificate, posture)
    except BindingError as error:
        refused = error
    assert THUMBPRINT not in str(refused)
    return refused.reason if refused else None


# --- cnf --------------------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("certificate", [None, SHA256])
def test_a_token_without_confirmation_is_anybodys(certificate: bytes | None, posture: Posture) -> None:
    hold_confirmation({"sub": "alice"}, certificate, posture)


@BOTH
def test_a_bound_token_is_taken_over_its_certificates_connection_and_no_other(posture: Posture) -> None:
    cnf = {"x5t#S256": THUMBPRINT}

    assert _confirmation(cnf, SHA256, posture) is None
    assert _confirmation(cnf, bytes(32), posture) is Reason.TOKEN_OTHER_CERTIFICATE
    assert _confirmation(cnf, None, posture) is Reason.TOKEN_WITHOUT_CERTIFICATE


def test_the_example_of_the_rfc_is_read() -> None:
    """RFC 8705 section 3.1, whose last character has a bit beyond the last octet."""
    thumbprint = "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2"
    said = base64.urlsafe_b64decode(f"{thumbprint}=")

    assert len(said) == 32
    assert _confirmation({"x5t#S256": thumbprint}, said) is None
    assert _confirmation({"x5t#S256": thumbprint}, bytes(32)) is Reason.TOKEN_OTHER_CERTIFICATE


@BOTH
@pytest.mark.parametrize("cnf", [None, "", "x", [], [{"x5t#S256": THUMBPRINT}], 1, True, {}])
def test_a_confirmation_that_is_no_object_with_members_is_refused(cnf: object, posture: Posture) -> None:
    assert _confirmation(cnf, posture=posture) is Reason.TOKEN_CONFIRMATION_MALFORMED


@BOTH
@pytest.mark.parametrize(
    "thumbprint",
    [
        None, 1, [THUMBPRINT], {"a": THUMBPRINT}, "", "x", f"{THUMBPRINT}=", f" {THUMBPRINT}", f"{THUMBPRINT}\n",
        THUMBPRINT[:-1], f"{THUMBPRINT}A", f"{THUMBPRINT[:-2]}+A", f"{THUMBPRINT[:-2]}/A", f"{THUMBPRINT[:-2]}=A",
        f"{THUMBPRINT[:-1]}é", SHA256.hex(), base64.b64encode(SHA256).decode(),
    ],
)  # fmt: skip
def test_a_thumbprint_in_any_other_form_is_refused(thumbprint: object, posture: Posture) -> None:
    assert _confirmation({"x5t#S256": thumbprint}, posture=posture) is Reason.TOKEN_CONFIRMATION_MALFORMED
    assert _confirmation({"x5t#S256": thumbprint, "jkt": "x"}, posture=posture) is Reason.TOKEN_CONFIRMATION_MALFORMED


@pytest.mark.parametrize(
    "cnf", [{"jkt": "x"}, {"jwk": {}}, {"kid": "a"}, {"x5t": THUMBPRINT}, {"X5T#S256": THUMBPRINT}]
)
def test_a_key_that_cannot_be_proven_here_is_refused_by_strict_and_left_by_istio(cnf: object) -> None:
    assert _confirmation(cnf, posture=STRICT) is Reason.TOKEN_CONFIRMATION_UNSUPPORTED
    assert _confirmation(cnf, posture=ISTIO) is None


def test_other_methods_beside_the_certificates_do_not_matter() -> None:
    assert _confirmation({"jkt": "x", "x5t#S256": THUMBPRINT}) is None
    assert _confirmation({"jkt": "x", "x5t#S256": THUMBPRINT}, bytes(32)) is Reason.TOKEN_OTHER_CERTIFICATE


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_a_thumbprint_is_its_own_certificates_alone(certificate: bytes, other: bytes) -> None:
    cnf = {"x5t#S256": base64.urlsafe_b64encode(certificate).decode().rstrip("=")}

    assert _confirmation(cnf, certificate) is None
    assert (_confirmation(cnf, other) is None) == (certificate == other)


# --- claims that name the peer ----------------------------------------------------------------------------------------


def _binding(part: PeerPart, *claim: str) -> Binding:
    return Binding(claim=claim or ("azp",), part=part, text=f"azp == peer.{part}", source="p.yaml:1")


def _held(binding: Binding, claims: dict[str, Any], peer: SpiffeId | None = SLEEP) -> Reason | None:
    refused: BindingError | None = None
    try:
        hold_binding(binding, claims, peer)
    except BindingError as error:
        refused = error
    if refused is None:
        return None
    assert "azp ==" in str(refused)
    assert "azp" not in refused.text  # the client is not told what the policy says
    return refused.reason


@pytest.mark.parametrize(
    ("part", "value"),
    [
        (PeerPart.ID, "spiffe://cluster.local/ns/apps/sa/sleep"),
        (PeerPart.TRUST_DOMAIN, "cluster.local"),
        (PeerPart.NAMESPACE, "apps"),
        (PeerPart.SERVICE_ACCOUNT, "sleep"),
    ],
)
def test_a_claim_names_the_peer_by_a_part_of_its_id(part: PeerPart, value: str) -> None:
    assert part.of(SLEEP) == value
    assert _held(_binding(part), {"azp": value}) is None
    assert _held(_binding(part), {"azp": ["batch", value]}) is None
    for other in (f"{value}x", value.upper(), f" {value}", "", "*", f"{value}*", ["batch", "web"], [value.upper(), 1]):
        assert _held(_binding(part), {"azp": other}) is Reason.TOKEN_OTHER_PEER, other


@pytest.mark.parametrize(
    "claims",
    [{}, {"AZP": "sleep"}, *({"azp": value} for value in (None, 1, True, {}, [], [1], [["sleep"]], {"a": "b"}))],
)
def test_a_token_that_names_nobody_is_refused(claims: dict[str, Any]) -> None:
    assert _held(_binding(PeerPart.SERVICE_ACCOUNT), claims) is Reason.TOKEN_NAMES_NO_PEER


def test_without_a_peer_a_bound_token_is_nobodys() -> None:
    assert _held(_binding(PeerPart.ID), {"azp": str(SLEEP)}, None) is Reason.TOKEN_WITHOUT_PEER
    other = SpiffeId.parse("spiffe://cluster.local/region/a/sleep")
    for part in (PeerPart.NAMESPACE, PeerPart.SERVICE_ACCOUNT):
        assert _held(_binding(part), {"azp": "sleep"}, other) is Reason.TOKEN_WITHOUT_PEER
    assert _held(_binding(PeerPart.ID), {"azp": str(other)}, other) is None


def test_a_nested_claim_is_found_by_its_path() -> None:
    binding = _binding(PeerPart.SERVICE_ACCOUNT, "kubernetes.io", "serviceaccount", "name")

    assert _held(binding, {"kubernetes.io": {"serviceaccount": {"name": "sleep"}}}) is None
    assert _held(binding, {"kubernetes.io": {"serviceaccount": {"name": "batch"}}}) is Reason.TOKEN_OTHER_PEER
    assert _held(binding, {"kubernetes": {"io": {"serviceaccount": "sleep"}}}) is Reason.TOKEN_NAMES_NO_PEER
