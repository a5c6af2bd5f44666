"""`countersign jwks`: what becomes of each key, from wherever a key set is."""

import json
from pathlib import Path
from typing import Any

import pytest
from countersign.cli.main import main
from countersign.mesh.http_server import HttpServer, Received
from countersign.mesh.issuer import Issuer, IssuerServer

from tests.tokens.material import jwk

ISSUER = Issuer("https://issuer.test")
RFC_7638: dict[str, Any] = {
    "kty": "RSA",
    "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3o"
    "knjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6"
    "qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awa"
    "pJzKnqDKgw",
    "e": "AQAB",
    "alg": "RS256",
    "kid": "2011-04-29",
}
MIXED = {
    "keys": [
        RFC_7638,
        jwk("ES256", alg=None, use="sig"),
        {"kty": "oct", "k": "AAAA", "kid": "secret"},
        jwk("ES384", use="enc", kid="\x1b[31mred"),
        None,
    ]
}


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps(MIXED))
    return path


def test_each_key_is_shown_with_its_thumbprint_and_whether_it_is_usable(
    mixed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["jwks", str(mixed)]) == 1
    lines = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    rows = [[cell.strip() for cell in line if cell.strip()] for line in lines]

    assert rows[0] == ["kid", "kty", "size", "alg", "use", "thumbprint (RFC 7638)", "verifies"]
    thumbprint = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"  # RFC 7638 3.1
    assert rows[1] == ["ok", "2011-04-29", "RSA", "2048 bits", "RS256", "-", thumbprint, "RS256"]
    assert [*rows[2][:6], rows[2][-1]] == ["ok", "ES256-0", "EC", "P-256", "-", "sig", "ES256"]
    assert rows[3] == ["no", "secret", "oct", *"----", "nothing: has private or symmetric members"]
    assert [*rows[4][:6], rows[4][-1]] == [
        *("no", "\\x1b[31mred", "EC", "P-384", "ES384", "enc"),
        "nothing: `use` is not sig",
    ]
    assert rows[5] == ["no", *"------", "nothing: not an object"]
    assert rows[6] == [f"5 keys at {mixed}, 3 of them not usable"]


def test_json_has_the_same_for_scripts_and_never_a_private_part(
    mixed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["jwks", "-o", "json", str(mixed)]) == 1
    said = capsys.readouterr().out
    found = json.loads(said)

    assert found["source"] == str(mixed)
    assert [key["usable"] for key in found["keys"]] == [True, True, False, False, False]
    assert found["keys"][0] == {
        "index": 0, "kid": "2011-04-29", "kty": "RSA", "size": "2048 bits", "alg": "RS256", "use": "",
        "thumbprint": "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs", "algorithms": ["RS256"], "why_not": "",
        "usable": True,
    }  # fmt: skip
    assert "AAAA" not in said


def test_a_set_whose_keys_are_all_usable_is_fine(capsys: pytest.CaptureFixture[str]) -> None:
    with IssuerServer(ISSUER) as server:
        assert main(["jwks", server.jwks_uri]) == 0
        assert server.fetches == 1
        said = capsys.readouterr().out

    assert f"3 keys at {server.jwks_uri}, 0 of them not usable" in said
    assert all(ISSUER.kid(algorithm) in said for algorithm in ("RS256", "ES256", "EdDSA"))


@pytest.mark.parametrize("asked", ["", "/", "/.well-known/openid-configuration"])
def test_an_issuer_is_asked_where_its_keys_are(asked: str, capsys: pytest.CaptureFixture[str]) -> None:
    def answer(received: Received) -> tuple[int, bytes]:
        base = f"http://127.0.0.1:{server.port}"
        known = {
            "/.well-known/openid-configuration": {"issuer": base, "jwks_uri": f"{base}/keys"},
            "/keys": ISSUER.jwks(),
        }
        found = known.get(received.path)
        return (404, b"{}") if found is None else (200, json.dumps(found).encode())

    with HttpServer("issuer", ("127.0.0.1", 0), answer) as server:
        assert main(["jwks", f"http://127.0.0.1:{server.port}{asked}"]) == 0
        assert f"3 keys at http://127.0.0.1:{server.port}/keys" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"<html>", "no key set: no JSON"),
        (b"[]", "no key set: not an object"),
        (b'{"keys":5}', "no key set: no `keys`"),
    ],
)
def test_what_is_no_key_set_is_a_finding(body: bytes, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with IssuerServer(ISSUER) as server:
        server.body = body
        assert main(["jwks", server.jwks_uri]) == 1

    assert said in capsys.readouterr().err


def test_a_set_without_a_key_is_a_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "jwks.json").write_text('{"keys":[]}')

    assert main(["jwks", str(tmp_path / "jwks.json")]) == 1
    assert capsys.readouterr().out == f"no keys at {tmp_path / 'jwks.json'}\n"


def test_keys_that_cannot_be_had_are_an_error_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with IssuerServer(ISSUER) as server:
        server.status = 500
        assert main(["jwks", server.jwks_uri]) == 3
        said = capsys.readouterr().err
    gone = main(["jwks", server.jwks_uri])
    refused = capsys.readouterr().err

    assert said.startswith(
        f"countersign jwks: {server.jwks_uri}: status 500; and as an issuer, {server.jwks_uri}/.well"
    )
    assert (gone, refused) == (3, f"countersign jwks: {server.jwks_uri}: cannot connect: Connection refused\n")
    for target, why in {
        str(tmp_path / "no.json"): "No such file or directory",
        "http://169.254.169.254/": "the address is link-local, a cloud's metadata, or nobody's",
        "http://192.0.2.1/": "http without TLS goes to this machine only, unless `insecureHttp` allows it",
        "ftp://127.0.0.1/": "not an http or https URL of a host without credentials",
    }.items():
        assert main(["jwks", target]) == 3
        assert capsys.readouterr().err == f"countersign jwks: {target}: {why}\n"


def test_the_configuration_says_how_to_get_there(
    mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "countersign.yaml"
    config.write_text(
        "trustDomain: any\n"
        "issuers:\n"
        "- {issuer: https://air.gapped, jwksFile: jwks.json}\n"
        "- {jwksUri: http://127.0.0.1:1/, addresses: [10.0.0.0/8]}\n"
    )

    assert main(["jwks", "--config", str(config), "https://air.gapped"]) == 1
    assert f"5 keys at {mixed}" in capsys.readouterr().out
    monkeypatch.setenv("COUNTERSIGN_CONFIG", str(config))
    assert main(["jwks", "http://127.0.0.1:1/"]) == 3
    assert "the address is none of the configured ones" in capsys.readouterr().err
    config.write_text("issuers: 5")
    assert main(["jwks", "http://127.0.0.1:1/"]) == 2
    assert f"{config}:1:10: error[CS0004]" in capsys.readouterr().err
    config.unlink()
    assert main(["jwks", "http://127.0.0.1:1/"]) == 3


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--timeout", "0"], "argument --timeout: `0` is no number of seconds up to 60"),
        (["--timeout", "x"], "argument --timeout: `x` is no number"),
        (["--proxy", "x"], "argument --proxy: `x` is not an http or https URL"),
        (["--address", "x"], "argument --address: `x` is no address or range"),
        (["-o", "yaml"], "argument -o/--output: invalid choice"),
    ],
)
def test_a_wrong_flag_is_refused(flags: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["jwks", *flags, "http://127.0.0.1:1/"])

    assert ended.value.code == 2
    assert message in capsys.readouterr().err
