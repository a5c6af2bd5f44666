"""The issuer of docker compose signs the scenario's tokens, and no others, for whoever reaches its socket."""

import json
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import jwt
import pytest
import yaml
from countersign.mesh.issuer import ALGORITHMS, Issuer
from countersign.mesh.minter import BETWEEN, ask_for_new_keys, ask_for_token, minting
from countersign.mesh.process import MeshError
from countersign.mesh.scenario import CONFIRMED_TOKEN, ISSUER, SCENARIO, STAFF_TOKEN, Token

ROOT = Path(__file__).parents[2]
TOKENS = {step.token.label: step.token for step in SCENARIO if step.token}
LIMIT = 10.0  # seconds


@pytest.fixture
def issuer() -> Issuer:
    return Issuer(ISSUER)


@pytest.fixture
def minter(issuer: Issuer, tmp_path: Path) -> Iterator[Path]:
    with minting(issuer, tmp_path / "mint.sock"):
        yield tmp_path / "mint.sock"


def test_no_two_tokens_of_the_scenario_share_a_label() -> None:
    assert len({id(step.token) for step in SCENARIO if step.token}) == len(TOKENS)


@pytest.mark.parametrize("token", TOKENS.values(), ids=TOKENS)
def test_every_token_of_the_scenario_is_minted_with_its_claims(token: Token, minter: Path) -> None:
    thumbprint = "of-sleep" if token.confirms else ""
    claims = jwt.decode(ask_for_token(minter, token.label, thumbprint), options={"verify_signature": False})

    assert claims.items() >= token.claims.items()
    assert claims.get("cnf") == ({"x5t#S256": "of-sleep"} if token.confirms else None)


def test_new_keys_sign_from_then_on_and_the_old_ones_stay_published(issuer: Issuer, minter: Path) -> None:
    before = {algorithm: issuer.kid(algorithm) for algorithm in ALGORITHMS}
    ask_for_new_keys(minter)
    signed_with = jwt.get_unverified_header(ask_for_token(minter, STAFF_TOKEN.label))["kid"]
    published = {key["kid"] for key in issuer.jwks()["keys"]}

    assert not {issuer.kid(algorithm) for algorithm in ALGORITHMS} & set(before.values())
    assert signed_with == issuer.kid("ES256")
    assert published > set(before.values())


def test_keys_are_not_rotated_again_before_countersign_looks_for_unknown_ones(minter: Path) -> None:
    cooldown = yaml.safe_load((ROOT / "envoy" / "settings" / "countersign.yaml").read_text())["keys"]["cooldown"]
    ask_for_new_keys(minter)
    rotated = time.monotonic()
    ask_for_new_keys(minter)

    assert time.monotonic() - rotated > float(cooldown.removesuffix("s"))
    assert float(cooldown.removesuffix("s")) < BETWEEN


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"[]\n",
        b"{}\n",
        b'{"mint": "root", "thumbprint": ""}\n',
        b'{"mint": {"sub": "root"}, "thumbprint": ""}\n',
        b'{"rotate": false}\n',
        b"\xff\n",
    ],
)
def test_any_other_question_is_refused_and_the_next_one_answered(line: bytes, issuer: Issuer, minter: Path) -> None:
    before = issuer.jwks()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(LIMIT)
        connection.connect(str(minter))
        connection.sendall(line)
        answer = json.loads(connection.makefile("rb").readline())

    assert list(answer) == ["error"]
    assert issuer.jwks() == before
    assert ask_for_token(minter, STAFF_TOKEN.label)


@pytest.mark.parametrize(("label", "thumbprint"), [(STAFF_TOKEN.label, "x"), (CONFIRMED_TOKEN.label, "")])
def test_a_thumbprint_is_for_tokens_of_one_certificate_only(label: str, thumbprint: str, minter: Path) -> None:
    with pytest.raises(MeshError, match="if and only if"):
        ask_for_token(minter, label, thumbprint)


def test_the_socket_is_its_owners_alone_replaces_an_old_one_and_goes_with_the_issuer(
    issuer: Issuer, tmp_path: Path
) -> None:
    path = tmp_path / "mint.sock"
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(path))
    with minting(issuer, path):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert ask_for_token(path, STAFF_TOKEN.label)

    assert mode == 0o600
    assert not path.exists()
    with pytest.raises(MeshError, match=r"the issuer, at .*mint\.sock: "):
        ask_for_token(path, STAFF_TOKEN.label)
