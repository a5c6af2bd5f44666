"""`countersign serve`: what /readyz and gRPC health say at each point of its life, and what SIGHUP does."""

import json
import os
import re
import signal
from pathlib import Path

import pytest
from countersign.mesh.issuer import Issuer, IssuerServer
from countersign.mesh.process import wait_until

from tests.cli.serving import Serve, free_port
from tests.cli.test_serve import BROKEN, NOBODY, WITH_KEYS, becomes, decide
from tests.edge.probing import ask
from tests.edge.serving import READERS, health

URL = "https://issuer.test"
TRANSPORTS = pytest.mark.parametrize("transport", ["native", "grpcio"])


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    directory = tmp_path / "policies"
    directory.mkdir()
    return directory


def told(serve: Serve) -> list[str]:
    """The lines of /readyz?verbose, with the status before them."""
    status, text = ask(serve.port, "/readyz?verbose")
    return [str(status), *text.splitlines()]


def agreed(serve: Serve) -> str | None:
    """What both health checks say; None while they differ, as they may for a moment."""
    over_http, over_grpc = ask(serve.port, "/readyz")[0] == 200, health(serve.address) == "SERVING"
    return None if over_http is not over_grpc else "SERVING" if over_grpc else "NOT_SERVING"


def agree(serve: Serve, expected: str) -> None:
    wait_until(
        f"{expected}, both", lambda: agreed(serve) == expected or None, within=20, child=serve.child
    )  # and not only for a moment:
    assert {agreed(serve) for _ in range(5)} == {expected}


@TRANSPORTS
def test_health_over_http_and_over_grpc_agree_at_every_point(tmp_path: Path, policies: Path, transport: str) -> None:
    with (
        IssuerServer(Issuer(URL)) as issuer,
        Serve(tmp_path, policies, "--namespace", "apps", "--transport", transport) as serve,
    ):
        agree(serve, "NOT_SERVING")
        assert told(serve) == [
            "503",
            "[+]shutdown ok",
            "[+]listening ok",
            "[-]policies failed: no policy has been loaded",
            "readyz check failed",
        ]

        issuer.delay = 3.0
        (policies / "p.yaml").write_text(WITH_KEYS % issuer.jwks_uri)
        fetching = f"[-]keys of {issuer.jwks_uri} failed: fetching keys from {issuer.jwks_uri}"
        wait_until("fetching", lambda: fetching in told(serve) or None, within=10, child=serve.child)
        agree(serve, "NOT_SERVING")

        agree(serve, "SERVING")
        assert told(serve) == [
            "200",
            "[+]shutdown ok",
            "[+]listening ok",
            "[+]policies ok",
            f"[+]keys of {issuer.jwks_uri} ok",
            "readyz check passed",
        ]

        (policies / "p.yaml").write_text(BROKEN)
        refused = "[!]policies: what the files say now is refused, and generation 1 stays in force; see the log"
        wait_until("being refused", lambda: refused in told(serve) or None, within=10, child=serve.child)
        agree(serve, "SERVING")

        (policies / "p.yaml").write_text(READERS)
        wait_until("being mended", lambda: "[+]policies ok" in told(serve) or None, within=10, child=serve.child)
        agree(serve, "SERVING")


def entry(directory: Path, uri: str, **more: object) -> Path:
    file = directory / "countersign.yaml"
    file.write_text(json.dumps({"issuers": [{"jwksUri": uri, **more}]}))
    return file


def test_without_the_keys_of_a_required_issuer_it_does_not_begin_to_be_ready(tmp_path: Path, policies: Path) -> None:
    with IssuerServer(Issuer(URL)) as issuer:
        (policies / "p.yaml").write_text(WITH_KEYS % issuer.jwks_uri)
        issuer.status = 500
        config = entry(tmp_path, issuer.jwks_uri, required=True)
        with Serve(tmp_path, policies, "--namespace", "apps", "--config", str(config)) as serve:
            failed = f"[-]keys of {issuer.jwks_uri} failed: no keys from {issuer.jwks_uri}, its tokens are refused: "
            wait_until("failing", lambda: f"{failed}status 500" in told(serve) or None, within=10, child=serve.child)
            agree(serve, "NOT_SERVING")
            issuer.status = 200
            agree(serve, "SERVING")


def test_a_copy_of_a_required_issuers_keys_will_do(tmp_path: Path, policies: Path) -> None:
    with IssuerServer(Issuer(URL)) as issuer:
        (policies / "p.yaml").write_text(WITH_KEYS % issuer.jwks_uri)
        flags = ("--namespace", "apps", "--keys-cache-directory", str(tmp_path / "copies"))
        config = entry(tmp_path, issuer.jwks_uri, required=True)
        with Serve(tmp_path, policies, *flags, "--config", str(config)) as serve:
            wait_until("a copy", lambda: [*(tmp_path / "copies").iterdir()] or None, within=10, child=serve.child)
        issuer.status = 500
        with Serve(tmp_path, policies, *flags, "--config", str(config)) as serve:
            at_hand = f"[!]keys of {issuer.jwks_uri}: those at hand count, new ones do not come: status 500"
            wait_until("failing", lambda: at_hand in told(serve) or None, within=10, child=serve.child)
            agree(serve, "SERVING")


def test_the_keys_of_an_issuer_that_is_down_are_told_and_keep_nobody_away(tmp_path: Path, policies: Path) -> None:
    uri = f"http://127.0.0.1:{free_port()}/jwks.json"
    (policies / "p.yaml").write_text(WITH_KEYS % uri)
    with Serve(tmp_path, policies, "--namespace", "apps") as serve:
        agree(serve, "SERVING")
        assert any(line.startswith(f"[!]keys of {uri}: no keys from {uri}, its tokens are") for line in told(serve))


@pytest.mark.parametrize("key", ["", "?api_key=s3cret"])
def test_the_query_of_an_issuers_url_is_told_to_nobody_and_the_rest_is(
    tmp_path: Path, policies: Path, key: str
) -> None:
    with IssuerServer(Issuer(URL)) as up:
        uris = [f"{up.jwks_uri}{key}", f"http://127.0.0.1:{free_port()}/jwks.json{key}"]
        for number, uri in enumerate(uris):
            text = (WITH_KEYS % uri).replace("metadata: {name: ", f"metadata: {{name: n{number}-")
            (policies / f"p{number}.yaml").write_text(text)
        with Serve(tmp_path, policies, "--namespace", "apps") as serve:
            agree(serve, "SERVING")
            plain, lines = ask(serve.port, "/readyz")[1], told(serve)

    hidden = r"\?REDACTED-[0-9a-f]{8}" if key else ""
    shown = [f"{re.escape(uri.removesuffix(key))}{hidden}" for uri in uris]
    right, wrong = (line for line in lines if "keys of" in line)
    assert re.fullmatch(rf"\[\+\]keys of {shown[0]} ok", right)
    assert re.fullmatch(rf"\[!\]keys of {shown[1]}: no keys from {shown[1]}, its tokens are refused: .+", wrong)
    assert not any(word in f"{plain}{lines}" for word in ("api_key", "s3cret"))


@pytest.mark.parametrize("flags", [(), ("--workers", "2")], ids=["one", "workers"])
def test_sighup_reads_policies_and_files_with_keys_again(
    tmp_path: Path, policies: Path, flags: tuple[str, ...]
) -> None:
    (policies / "p.yaml").write_text(READERS)
    with Serve(tmp_path, policies, "--namespace", "apps", *flags) as serve:
        wait_until("being ready", lambda: serve.ready() == "ok" or None, within=20, child=serve.child)
        os.kill(serve.child.pid, signal.SIGHUP)
        serve.wait_for_log("asked to reload: reading the policies and the files with certificates and keys again")
        serve.wait_for_log("policies are unchanged: generation 1")
        (policies / "p.yaml").write_text(BROKEN)
        serve.wait_for_log("the last good set stays in force")
        before = serve.log.count("error[CS0003]")
        os.kill(serve.child.pid, signal.SIGHUP)
        wait_until("being told again", lambda: serve.log.count("error[CS0003]") > before or None, within=10)
        assert before == 1
        assert serve.ready() == "ok"
        (policies / "p.yaml").write_text(NOBODY)
        os.kill(serve.child.pid, signal.SIGHUP)
        serve.wait_for_log("generation 2")


def test_sighup_ends_no_worker(tmp_path: Path, policies: Path) -> None:
    (policies / "p.yaml").write_text(READERS)
    with Serve(tmp_path, policies, "--namespace", "apps", "--workers", "2") as serve:
        wait_until("being ready", lambda: serve.ready() == "ok" or None, within=20, child=serve.child)
        for pid in re.findall(r"serves, process (\d+)\n", serve.log):
            os.kill(int(pid), signal.SIGHUP)
        os.kill(serve.child.pid, signal.SIGHUP)
        serve.wait_for_log("policies are unchanged: generation 1")
        (policies / "p.yaml").write_text(NOBODY)
        serve.wait_for_log("generation 2")
        assert "has ended" not in serve.log


def test_a_file_that_can_be_read_again_is_in_force_again(tmp_path: Path, policies: Path) -> None:
    (policies / "p.yaml").write_text(READERS)
    with Serve(tmp_path, policies, "--namespace", "apps") as serve:
        (policies / "q.yaml").write_bytes(b"\xff")
        serve.wait_for_log("not UTF-8")
        (policies / "q.yaml").unlink()
        wait_until("being mended", lambda: "[+]policies ok" in told(serve) or None, within=10, child=serve.child)
        assert becomes(serve, "allow-rule-matched")
        assert decide(serve, method="POST") == "no-allow-rule-matched"
