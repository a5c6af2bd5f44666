"""`countersign explain` about tokens of one workload: which binding held, which did not, and what to say besides."""

import base64
import datetime as dt
import json
from pathlib import Path
from typing import Any, Final

import pytest

from tests.cli.explaining import Explain
from tests.support.certificates import HOUR, Issued, authority, issue

NOW: Final = dt.datetime.now(dt.UTC)
TIMES: Final[dict[str, Any]] = {"not_before": NOW - HOUR, "not_after": NOW + 24 * HOUR}
SLEEP: Final = "spiffe://cluster.local/ns/apps/sa/sleep"
BATCH: Final = "spiffe://cluster.local/ns/legacy/sa/batch"
LEAF: Final = issue(SLEEP, by=authority(**TIMES), **TIMES)
CNF: Final = {"x5t#S256": base64.urlsafe_b64encode(LEAF.sha256).decode().rstrip("=")}
REQUEST: Final = ("--to", "apps/httpbin", "GET", "/headers")


@pytest.fixture
def explain(capsys: pytest.CaptureFixture[str]) -> Explain:
    return Explain(capsys)


def _claims(**more: Any) -> tuple[str, str]:
    return ("--claims", json.dumps({"iss": "https://workloads.example", "sub": "job", "aud": "httpbin", **more}))


def _file(folder: Path, leaf: Issued) -> tuple[str, str]:
    (folder / "tls.crt").write_text(leaf.pem)
    return ("--certificate", str(folder / "tls.crt"))


def test_a_binding_that_holds_is_shown_with_what_was_wanted_and_what_the_token_says(explain: Explain) -> None:
    told = explain.json("--as", SLEEP, *REQUEST, *_claims(azp="sleep"))
    (binding,) = told["bindings"]

    assert told["decision"] == "ALLOW"
    assert (binding["field"], binding["wanted"], binding["got"]) == ("azp == peer.service_account", ["sleep"], "sleep")
    assert binding["outcome"] == "match"
    assert binding["source"].endswith("workload-tokens.yaml:9")


@pytest.mark.parametrize(
    ("peer", "claims", "reason", "wanted", "got"),
    [
        (("--as", BATCH), {"azp": "sleep"}, "token-bound-to-other-peer", "batch", "sleep"),
        (("--as", BATCH), {"azp": ["sleep", "web"]}, "token-bound-to-other-peer", "batch", "sleep, web"),
        (("--as", SLEEP), {}, "token-names-no-peer", "sleep", "absent"),
        (("--as", "spiffe://cluster.local/vm/a"), {"azp": "sleep"}, "token-bound-without-peer", "a peer", "sleep"),
    ],
)
def test_a_binding_that_does_not_hold_is_shown_too(
    explain: Explain, peer: tuple[str, str], claims: dict[str, Any], reason: str, wanted: str, got: str
) -> None:
    told = explain.json(*peer, *REQUEST, *_claims(**claims))
    (binding,) = told["bindings"]

    assert (told["decision"], told["reason"], told["step"]) == ("DENY", reason, "token")
    assert (told["response"]["status"], told["user"]["subject"]) == (401, "job")
    assert (binding["outcome"], binding["got"]) == ("no match", got)
    assert wanted in binding["wanted"][0]
    shown = explain(*peer, *REQUEST, *_claims(**claims)).out
    assert "the token is bound to its workload" in shown
    assert f"wanted {binding['wanted'][0]}; got {got}" in shown


def test_tokens_of_other_rules_are_bound_to_nobody(explain: Explain) -> None:
    told = explain.json("--as", SLEEP, *REQUEST, "--claims", '{"iss":"https://issuer.example","aud":"httpbin"}')

    assert (told["decision"], told["bindings"]) == ("ALLOW", [])


def test_a_certificate_is_a_peer_and_what_a_token_is_bound_to(explain: Explain, tmp_path: Path) -> None:
    mine, other = _claims(azp="sleep", cnf=CNF), issue(SLEEP, **TIMES)

    assert explain.json(*_file(tmp_path, LEAF), *REQUEST, *mine)["decision"] == "ALLOW"
    assert explain.json("--peer", "xfcc", *_file(tmp_path, LEAF), *REQUEST, *mine)["decision"] == "ALLOW"
    assert explain.json(*_file(tmp_path, other), *REQUEST, *mine)["reason"] == "token-bound-to-other-certificate"
    told = explain.json("--as", SLEEP, *REQUEST, *mine)
    assert told["reason"] == "token-bound-without-certificate"
    assert any("--certificate FILE" in note for note in told["notes"])


@pytest.mark.parametrize("named", [False, True])
def test_behind_trusted_hops_the_certificate_is_the_one_of_the_peer_and_not_the_proxys(
    explain: Explain, tmp_path: Path, named: bool
) -> None:
    flags = ["--peer", "xfcc", "--xfcc-trusted-hops", "2"]
    if named:
        flags += ["--xfcc-trusted-proxy", "spiffe://cluster.local/ns/edge/sa/gateway"]

    assert explain.json(*flags, *_file(tmp_path, LEAF), *REQUEST, *_claims(azp="sleep", cnf=CNF))["decision"] == "ALLOW"


def test_a_certificate_that_makes_no_peer_is_refused_as_it_would_be(explain: Explain, tmp_path: Path) -> None:
    told = explain.json(*_file(tmp_path, issue(SLEEP, ca=True, **TIMES)), *REQUEST)
    assert told["reason"] == "peer-certificate-malformed"
    told = explain.json(*_file(tmp_path, issue(dns=["sleep.example"], **TIMES)), *REQUEST)
    assert told["reason"] == "mtls-required"


def test_a_file_without_certificate_is_one_clear_line(explain: Explain, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("words")
    wrong = explain("--certificate", str(tmp_path / "x"), *REQUEST)
    missing = explain("--certificate", str(tmp_path / "none"), *REQUEST)

    assert (wrong.code, missing.code) == (2, 3)
    assert "no PEM block" in wrong.err
    assert explain("--certificate", "x", "--as", SLEEP, *REQUEST).code == 2
