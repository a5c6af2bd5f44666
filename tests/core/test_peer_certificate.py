"""The certificate that Envoy presents against principal and header, and which hash of a certificate is proven."""

from dataclasses import replace
from typing import Any, Final

import pytest
from countersign.certificates.presented import presented
from countersign.core.certificate import Certificate
from countersign.core.decision import Reason
from countersign.core.facts import Endpoint, RequestFacts
from countersign.core.identity import Peer, PeerError, PeerRules, PeerSource, XfccMode, authenticate_peer
from countersign.core.spiffe import SpiffeId
from countersign.wire.codec import decode

from tests.support import vectors
from tests.support.envoy_data_plane import auth
from tests.support.requests import WEB, XFCC, facts

SHA256: Final = bytes(range(32))
OTHER: Final = bytes(32)
EVIL: Final = "spiffe://cluster.local/ns/edge/sa/evil"
CERTIFICATE: Final = Certificate(
    sha256=SHA256, subject="", issuer="CN=CA", serial=1, not_before=0.0, not_after=1.0, uris=(WEB,), key="EC P-256"
)
ME: Final = SpiffeId.parse(WEB)
BY_PRINCIPAL: Final = PeerRules(source=PeerSource.PRINCIPAL)
FROM_XFCC: Final = PeerRules(source=PeerSource.XFCC)
BEHIND_ONE: Final = PeerRules(source=PeerSource.XFCC, trusted_hops=1)
ALL: Final = pytest.mark.parametrize("rules", [PeerRules(), BY_PRINCIPAL, FROM_XFCC], ids=lambda rules: rules.source)
READS_HEADER: Final = pytest.mark.parametrize("rules", [PeerRules(), FROM_XFCC], ids=lambda rules: rules.source)


def _element(uri: str = WEB, sha256: bytes = SHA256) -> str:
    return f'By=spiffe://cluster.local/ns/apps/sa/shop;Hash={sha256.hex()};Subject="";URI={uri}'


def _peer(rules: PeerRules, *lines: str, principal: str = WEB, certificate: Certificate | None = None) -> Peer:
    return authenticate_peer(facts(*((XFCC, line) for line in lines), principal=principal), rules, certificate)


def _refused(rules: PeerRules, *lines: str, **more: Any) -> Reason:
    with pytest.raises(PeerError) as error:
        _peer(rules, *lines, **more)
    assert str(error.value)
    return error.value.reason


# --- the certificate against principal and header ---------------------------------------------------------------------


@READS_HEADER
def test_a_header_with_the_certificates_hash_agrees_and_one_with_another_is_refused(rules: PeerRules) -> None:
    assert _peer(rules, _element(), certificate=CERTIFICATE) == Peer(id=ME, certificate=SHA256)
    for wrong in (_element(sha256=OTHER), f"URI={WEB}", f"Hash=;URI={WEB}", f"Hash={SHA256.hex().upper()};URI={WEB}"):
        assert _refused(rules, wrong, certificate=CERTIFICATE) is Reason.PEER_CERTIFICATE_MISMATCH


@READS_HEADER
def test_only_the_last_element_is_about_this_connection(rules: PeerRules) -> None:
    before = _element(EVIL, OTHER)

    assert _peer(rules, before, _element(), certificate=CERTIFICATE) == Peer(id=ME, certificate=SHA256)
    assert _refused(rules, _element(), before, certificate=CERTIFICATE) is Reason.PEER_CERTIFICATE_MISMATCH


@ALL
@pytest.mark.parametrize("uris", [(EVIL,), (EVIL, WEB), ()])
def test_a_certificate_of_another_name_than_the_principal_is_refused(rules: PeerRules, uris: tuple[str, ...]) -> None:
    certificate = replace(CERTIFICATE, uris=uris)

    assert _refused(rules, _element(), certificate=certificate) is Reason.PEER_CERTIFICATE_MISMATCH


@ALL
def test_a_certificate_beside_no_principal_is_refused(rules: PeerRules) -> None:
    assert _refused(rules, _element(), certificate=CERTIFICATE, principal="") is Reason.PEER_CERTIFICATE_MISMATCH


@ALL
@pytest.mark.parametrize(
    "fields",
    [
        {"uris": (WEB, EVIL)},  # Envoy's principal is the first and hides the second
        {"uris": (WEB, "https://shop.example/")},
        {"is_ca": True},
        {"key_usage": frozenset({"digitalSignature", "keyCertSign"})},
    ],
)
def test_a_certificate_that_names_a_workload_and_may_not_is_refused(rules: PeerRules, fields: dict[str, Any]) -> None:
    certificate = replace(CERTIFICATE, **fields)

    assert _refused(rules, _element(), certificate=certificate) is Reason.PEER_CERTIFICATE_MALFORMED


@pytest.mark.parametrize("rules", [PeerRules(), BY_PRINCIPAL])
def test_a_certificate_without_spiffe_id_has_no_name_and_a_hash(rules: PeerRules) -> None:
    certificate = replace(CERTIFICATE, uris=(), dns=("a.example",), is_ca=True)

    assert _peer(rules, principal="a.example", certificate=certificate) == Peer(id=None, certificate=SHA256)


def test_without_a_header_the_certificate_is_enough_where_the_principal_is() -> None:
    assert _peer(PeerRules(), certificate=CERTIFICATE) == Peer(id=ME, certificate=SHA256)
    assert _peer(FROM_XFCC, certificate=CERTIFICATE) == Peer()


def test_a_network_filters_check_has_the_certificate_too() -> None:
    request = RequestFacts(http=None, source=Endpoint(principal=WEB), destination=Endpoint())

    assert authenticate_peer(request, PeerRules(), CERTIFICATE) == Peer(id=ME, certificate=SHA256)


# --- which hash is proven ---------------------------------------------------------------------------------------------


def test_a_hash_is_proven_by_the_element_that_names_the_peer() -> None:
    text, json = _element(), f'[{{"hash":"{SHA256.hex()}","uri":["{WEB}"]}}]'
    for rules in (PeerRules(), FROM_XFCC, PeerRules(xfcc_mode=XfccMode.SANITIZE_SET)):
        for line in (text, json):
            assert _peer(rules, line) == Peer(id=ME, certificate=SHA256)


@pytest.mark.parametrize(
    "line",
    [
        f"Hash={SHA256.hex()}",  # an Envoy that is not told to write URIs: nothing ties it to the peer
        f"Hash=ab;URI={WEB}",
        f"Hash={SHA256.hex().upper()};URI={WEB}",
        f"Hash={SHA256.hex()}0;URI={WEB}",
        f"Hash=;URI={WEB}",
        f"URI={WEB}",
    ],
)
def test_no_other_hash_is(line: str) -> None:
    assert _peer(PeerRules(), line) == Peer(id=ME)


@READS_HEADER
def test_an_element_that_a_client_wrote_proves_no_hash(rules: PeerRules) -> None:
    assert _peer(rules, _element(sha256=OTHER), _element()) == Peer(id=ME, certificate=SHA256)
    assert _peer(rules, f"{_element(sha256=OTHER)},{_element()}") == Peer(id=ME, certificate=SHA256)


def test_the_principal_alone_proves_no_hash_whatever_a_header_says() -> None:
    assert _peer(BY_PRINCIPAL, _element()) == Peer(id=ME)
    assert _peer(PeerRules()) == Peer(id=ME)


@pytest.mark.parametrize("principal", ["", "a.example"])
def test_without_a_proven_peer_a_header_proves_no_hash(principal: str) -> None:
    assert _peer(PeerRules(), _element(), principal=principal) == Peer()


def test_behind_a_trusted_hop_the_hash_is_of_the_one_that_met_the_peer_and_not_the_proxys() -> None:
    gateway = "spiffe://cluster.local/ns/edge/sa/gateway"
    proxys = replace(CERTIFICATE, uris=(gateway,), sha256=OTHER)
    lines = (_element(), _element(gateway, OTHER))

    assert _peer(BEHIND_ONE, *lines, principal=gateway) == Peer(id=ME, certificate=SHA256)
    assert _peer(BEHIND_ONE, *lines, principal=gateway, certificate=proxys) == Peer(id=ME, certificate=SHA256)
    wrong = replace(proxys, sha256=SHA256)
    assert _refused(BEHIND_ONE, *lines, principal=gateway, certificate=wrong) is Reason.PEER_CERTIFICATE_MISMATCH


# --- recorded and published -------------------------------------------------------------------------------------------


def test_every_recorded_certificate_is_its_connections_and_convicts_what_a_client_wrote() -> None:
    outcomes: dict[str, int] = {}
    for row in vectors.json_lines("checkrequests/envoy-1.40.jsonl"):
        request = decode(bytes(auth.CheckRequest.from_dict(row)))
        if not request.source.certificate:
            continue
        certificate = presented(request.source.certificate)
        try:
            peer = authenticate_peer(request, PeerRules(), certificate)
        except PeerError as error:
            outcome = str(error.reason)
        else:
            assert peer.certificate == certificate.sha256
            outcome = str(peer.id)
        outcomes[outcome] = outcomes.get(outcome, 0) + 1

    assert outcomes == {
        "spiffe://td/ns/a/sa/web": 17,
        "spiffe://td/ns/a/sa/evil": 3,  # its own name, with a hostile subject beside it
        "None": 2,  # a DNS name, a subject
        "peer-certificate-mismatch": 2,  # FORWARD_ONLY and ALWAYS_FORWARD_ONLY: the client wrote the header
        "peer-certificate-malformed": 5,  # two URI SANs, or one that is no SPIFFE ID
        "peer-malformed": 11,
    }


def test_the_published_case_of_a_hash_that_is_not_the_certificates() -> None:
    cases = vectors.json_file("vectors/xfcc/xfcc_cases.json")["cases"]
    (case,) = [case for case in cases if case["name"] == "Hash vs source.certificate mismatch"]
    peer = _peer(FROM_XFCC, case["xfcc"]).id
    certificate = replace(CERTIFICATE, uris=(str(peer),))

    refused = _refused(FROM_XFCC, case["xfcc"], principal=str(peer), certificate=certificate)
    assert (case["expect"], refused) == ("deny-if-certificate-known", Reason.PEER_CERTIFICATE_MISMATCH)
