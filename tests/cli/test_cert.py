"""`countersign cert inspect` by the real command: what a file says, and whether it makes a peer."""

import base64
import datetime as dt
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
from countersign.certificates.presented import presented
from countersign.cli.times import span

from tests.support import vectors
from tests.support.certificates import HOUR, Issued, authority, issue

SHOP: Final = "spiffe://cluster.local/ns/apps/sa/shop"
NOW: Final = dt.datetime.now(dt.UTC)
DAY: Final = 24 * HOUR  # made when the module is read: far from the hours that a busy run of all tests takes
TIMES: Final[dict[str, Any]] = {"not_before": NOW - HOUR, "not_after": NOW + DAY}
CA: Final = authority(**TIMES)
LEAF: Final = issue(SHOP, by=CA, dns=["shop.example"], ca=False, **TIMES)


def _run(*arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "countersign", "cert", "inspect", *arguments]
    return subprocess.run(command, input=given, capture_output=True, timeout=60, check=False)


def _told(*chain: Issued, arguments: tuple[str, ...] = ()) -> tuple[int, dict[str, Any]]:
    result = _run("-", "-o", "json", *arguments, given="".join(each.pem for each in chain).encode())
    assert result.stderr == b""
    told: dict[str, Any] = json.loads(result.stdout)
    assert told["accepted"] is (not told["why_not"]) is (result.returncode == 0)
    return result.returncode, told


@pytest.fixture
def ca(tmp_path: Path) -> str:
    file = tmp_path / "ca.pem"
    file.write_text(CA.pem)
    return str(file)


def test_a_workloads_certificate_is_a_peer_and_everything_about_it_is_told(ca: str) -> None:
    code, told = _told(LEAF, CA, arguments=("--ca", ca))

    assert code == 0
    assert told["spiffe_id"] == SHOP
    assert told["xfcc_hash"] == LEAF.sha256.hex()
    assert base64.urlsafe_b64decode(f"{told['x5t_s256']}=") == LEAF.sha256
    assert (told["verified"], told["why_unverified"], told["notes"]) == (True, "", [])
    leaf, signer = told["certificates"]
    assert (leaf["uris"], leaf["dns"], leaf["is_ca"], leaf["key"]) == ([SHOP], ["shop.example"], False, "EC P-256")
    assert leaf["validity"].startswith("valid, ends in 23 hours ")
    assert (leaf["signed_by_next"], signer["signed_by_next"], signer["self_signed"]) == (True, None, True)


def test_the_text_says_the_same_to_people(tmp_path: Path) -> None:
    (tmp_path / "tls.crt").write_text(LEAF.pem)
    result = _run(str(tmp_path / "tls.crt"))
    lines = result.stdout.decode().splitlines()

    assert result.returncode == 0
    assert lines[0] == "as a peer        accepted"
    assert f"hash in XFCC     Hash={LEAF.sha256.hex()}" in lines
    assert f"  SAN URI        {SHOP}" in lines
    assert "note: no authority was asked: --ca FILE says whom Envoy trusts" in lines


def test_der_is_read_too(tmp_path: Path) -> None:
    (tmp_path / "leaf.der").write_bytes(LEAF.der)
    result = _run(str(tmp_path / "leaf.der"), "-o", "json")

    assert json.loads(result.stdout)["spiffe_id"] == SHOP


@pytest.mark.parametrize(
    ("leaf", "why"),
    [
        (issue(SHOP, not_before=NOW - 3 * HOUR, not_after=NOW - 2 * HOUR), "expired 2 hours"),
        (issue(SHOP, not_before=NOW + DAY, not_after=NOW + 2 * DAY), "not yet valid, begins in 23 hours"),
        (issue(SHOP, "https://shop.example/", **TIMES), "2 URI SANs"),
        (issue(subject="shop", **TIMES), "0 URI SANs"),
        (issue("spiffe://cluster.local", **TIMES), "a trust domain's"),
        (issue("spiffe://Cluster.local/a", **TIMES), "no SPIFFE ID"),
        (issue(SHOP, ca=True, **TIMES), "a CA's"),
        (issue(SHOP, usage=("key_cert_sign",), **TIMES), "keyCertSign"),
        (issue("spiffe://other.example/ns/a/sa/b", **TIMES), "not the mesh's trust domain (cluster.local)"),
    ],
)
def test_what_makes_no_peer_is_told_with_its_reason(leaf: Issued, why: str) -> None:
    code, told = _told(leaf)

    assert code == 1
    assert why in "\n".join(told["why_not"])
    assert told["xfcc_hash"] == leaf.sha256.hex()


def test_another_name_of_the_mesh_is_the_meshs() -> None:
    leaf = issue("spiffe://other.example/ns/a/sa/b", **TIMES)

    assert _told(leaf, arguments=("--trust-domain-alias", "other.example"))[0] == 0
    assert _told(leaf, arguments=("--trust-domain", "other.example"))[0] == 0


def test_a_chain_in_the_wrong_order_or_of_another_authority_is_told(ca: str) -> None:
    middle = authority("Middle", by=CA, **TIMES)
    leaf = issue(SHOP, by=middle, **TIMES)

    assert _told(leaf, middle, arguments=("--ca", ca))[0] == 0
    _, told = _told(leaf, CA, middle)
    assert any("certificate 1 is not signed by number 2" in why for why in told["why_not"])
    _, told = _told(issue(SHOP, **TIMES), arguments=("--ca", ca))
    assert told["verified"] is False
    assert any("no path to the authorities of --ca" in why for why in told["why_not"])


def test_a_certificate_that_other_readers_may_refuse_has_a_note() -> None:
    _, told = _told(issue(SHOP, usage=None, **TIMES))

    assert any("no critical key usage" in note for note in told["notes"])


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (b"", "no PEM block"),
        (b"words", "wants PEM, or the DER"),
        (b"\xff\xfe", "neither PEM nor DER"),
        (b"\x30\x03abc", "not an X.509 certificate"),
        (b"-----BEGIN PRIVATE KEY-----\nQUJD\n-----END PRIVATE KEY-----\n", "`PRIVATE KEY`"),
    ],
)
def test_what_is_no_certificate_is_one_clear_line(given: bytes, told: str) -> None:
    result = _run("-", given=given)

    assert (result.returncode, result.stdout) == (2, b"")
    (line,) = result.stderr.decode().splitlines()
    assert line.startswith("countersign cert inspect: -: ")
    assert told in line


def test_a_file_that_is_not_there_and_an_authority_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "leaf.pem").write_text(LEAF.pem)
    (tmp_path / "ca.pem").write_text("words")
    missing = _run(str(tmp_path / "none.pem"))
    wrong = _run(str(tmp_path / "leaf.pem"), "--ca", str(tmp_path / "ca.pem"))

    assert missing.returncode == 3
    assert wrong.returncode == 2
    assert b"Traceback" not in missing.stderr + wrong.stderr


def test_names_cannot_command_a_terminal() -> None:
    result = _run("-", given=issue(SHOP, subject="evil\x1b[2J", **TIMES).pem.encode())

    assert b"\x1b" not in result.stdout
    assert b"evil" in result.stdout


def test_every_recorded_certificate_says_the_hash_that_its_envoy_wrote() -> None:
    row = next(
        row
        for row in vectors.json_lines("checkrequests/envoy-1.40.jsonl")
        if row["attributes"]["source"].get("principal") == "spiffe://td/ns/a/sa/web"
        and "certificate" in row["attributes"]["source"]
        and "Hash=" in json.dumps(row)
    )
    text = row["attributes"]["source"]["certificate"]
    pem = text.replace("%0A", "\n").replace("%20", " ").replace("%2B", "+").replace("%2F", "/").replace("%3D", "=")
    result = _run("-", "-o", "json", given=pem.encode())
    told = json.loads(result.stdout)

    assert told["xfcc_hash"] == presented(text).sha256.hex()
    assert f"Hash={told['xfcc_hash']}" in json.dumps(row)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 seconds"), (1, "1 second"), (61.9, "1 minute 1 second"), (3600, "1 hour"), (90061, "1 day 1 hour")],
)
def test_spans_are_words(seconds: float, words: str) -> None:
    assert span(seconds) == words
