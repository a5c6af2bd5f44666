"""The committed files move as they are, or not at all."""

import json
from pathlib import Path

import pytest
import yaml
from countersign.mesh.relocate import JWKS_URI, Places, RelocationError, relocate, relocate_policies

POLICIES = Path(__file__).parents[2] / "envoy" / "policies"
PLACES = Places(addresses={"0.0.0.0:15006": ("127.0.0.1", 4711)}, paths={"/run/mesh/certs": Path("/here")})


def test_a_known_address_moves() -> None:
    moved = json.loads(relocate("address: {socket_address: {address: 0.0.0.0, port_value: 15006}}", PLACES))

    assert moved == {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 4711}}}


@pytest.mark.parametrize("address", ["{address: 0.0.0.0, port_value: 15007}", "{address: httpbin, port_value: 15006}"])
def test_an_unknown_address_is_an_error(address: str) -> None:
    with pytest.raises(RelocationError, match="no place for the address"):
        relocate(f"a: [{{socket_address: {address}}}]", PLACES)


def test_a_known_path_moves() -> None:
    assert json.loads(relocate("[{filename: /run/mesh/certs/sleep/tls.crt}]", PLACES)) == [
        {"filename": "/here/sleep/tls.crt"}
    ]


@pytest.mark.parametrize("path", ["/etc/passwd", "/run/mesh/certsother/tls.crt", "/run/mesh/certs"])
def test_an_unknown_path_is_an_error(path: str) -> None:
    with pytest.raises(RelocationError, match="no place for the path"):
        relocate(f"filename: {path}", PLACES)


def test_what_matches_requests_stays() -> None:
    text = "route: {match: {prefix: /}, timeout: 5s, domains: ['*'], count: 3, yes_: true, none: null}"

    assert json.loads(relocate(text, PLACES)) == yaml.safe_load(text)


def test_policies_keep_every_line_but_the_issuers_address(tmp_path: Path) -> None:
    here = "http://127.0.0.1:4711/jwks.json"
    relocate_policies(POLICIES, tmp_path, here)
    changed = []
    for file in sorted(POLICIES.iterdir()):
        lines = zip(file.read_text().splitlines(), (tmp_path / file.name).read_text().splitlines(), strict=True)
        changed += [(before, after) for before, after in lines if before != after]

    assert len(changed) == 2  # of two issuers, whose keys are the same
    assert {(before.strip(), after.strip()) for before, after in changed} == {
        (f"jwksUri: {JWKS_URI}", f"jwksUri: {here}")
    }


def test_another_issuer_in_the_policies_is_an_error(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    text = (POLICIES / "request-authentication.yaml").read_text()
    (source / "users.yaml").write_text(text.replace(JWKS_URI, "https://accounts.example/jwks.json"))

    with pytest.raises(RelocationError, match=r"users\.yaml: no place for the jwksUri"):
        relocate_policies(source, target, "http://127.0.0.1:4711/jwks.json")
