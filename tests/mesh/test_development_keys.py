"""Keys for development: made once, kept from others, and the only ones that are ever signed with."""

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from countersign.core.posture import Posture
from countersign.mesh.development_keys import KEY_SET, SIGNING_KEY, DevelopmentKeyError, development_key
from countersign.mesh.issuer import ALGORITHMS
from countersign.tokens.jose import parse
from countersign.tokens.keys import KeySet
from countersign.tokens.verify import verify

from tests.tokens.material import NOW, jwk, private_key, rule


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_key_is_made_once_and_its_tokens_verify(tmp_path: Path, algorithm: str) -> None:
    directory = tmp_path / "new" / "keys"
    made, again = (development_key(directory, algorithm) for _ in range(2))
    keys = KeySet.parse((directory / KEY_SET).read_text())
    token = again.sign({"iss": "i", "exp": NOW + 9})

    assert (made.made, again.made) == (True, False)
    assert made.kid == again.kid == keys.keys[0].kid
    assert made.kid.startswith("development-")
    assert not keys.rejected
    assert verify(parse(token), rule("i"), keys, NOW, Posture.STRICT).key == keys.keys[0].thumbprint


def test_nobody_else_can_read_the_signing_key(tmp_path: Path) -> None:
    directory = tmp_path / "keys"
    previous = os.umask(0)
    try:
        development_key(directory, "ES256")
    finally:
        os.umask(previous)

    assert stat.S_IMODE((directory / SIGNING_KEY).stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert json.loads((directory / KEY_SET).read_text())["keys"][0].keys() == {
        "kty",
        "crv",
        "x",
        "y",
        "kid",
        "alg",
        "use",
    }


def test_a_key_that_others_can_read_is_not_used(tmp_path: Path) -> None:
    development_key(tmp_path, "ES256")
    (tmp_path / SIGNING_KEY).chmod(0o640)
    with pytest.raises(DevelopmentKeyError, match="others can read or write it; chmod 600"):
        development_key(tmp_path, "ES256")
    (tmp_path / SIGNING_KEY).chmod(0o600)
    assert development_key(tmp_path, "ES256").algorithm == "ES256"


def test_the_key_set_is_written_again_if_it_is_gone(tmp_path: Path) -> None:
    kid = development_key(tmp_path, "ES256").kid
    (tmp_path / KEY_SET).unlink()

    assert development_key(tmp_path, "ES256").kid == kid
    assert kid in (tmp_path / KEY_SET).read_text()


def test_a_key_for_one_algorithm_is_none_for_another(tmp_path: Path) -> None:
    development_key(tmp_path, "ES256")
    with pytest.raises(DevelopmentKeyError, match="is a key for ES256; for RS256 give"):
        development_key(tmp_path, "RS256")


def private_jwk(**members: Any) -> dict[str, Any]:
    """A private key as others keep theirs."""
    numbers = private_key("ES256").private_numbers()  # type: ignore[union-attr]
    return {**jwk("ES256"), "d": numbers.private_value.to_bytes(32).hex(), **members}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document["key"],  # a plain JWK
        lambda document: {"key": document["key"]},
        lambda document: {**document, "countersign": "mine"},
        lambda document: {**document, "key": {**document["key"], "kid": "production"}},
        lambda document: {**document, "key": {**document["key"], "alg": "HS256"}},
        lambda document: {**document, "key": {name: v for name, v in document["key"].items() if name != "d"}},
        lambda document: {**document, "key": []},
        lambda _: private_jwk(),
        lambda _: [],
        lambda _: None,
    ],
)
def test_no_key_is_used_that_was_not_made_here(tmp_path: Path, change: Any) -> None:
    development_key(tmp_path, "ES256")
    file = tmp_path / SIGNING_KEY
    file.write_text(json.dumps(change(json.loads(file.read_text()))))

    with pytest.raises(DevelopmentKeyError, match="was not made by `countersign token mint`"):
        development_key(tmp_path, "ES256")


@pytest.mark.parametrize("octets", [b"", b"{", b"\xff", b"[" * 50_000, b"-----BEGIN PRIVATE KEY-----\n"])
def test_no_file_that_is_none_of_its_own_is_a_key(tmp_path: Path, octets: bytes) -> None:
    development_key(tmp_path, "ES256")
    (tmp_path / SIGNING_KEY).write_bytes(octets)

    with pytest.raises(DevelopmentKeyError, match="was not made by"):
        development_key(tmp_path, "ES256")


def test_neither_links_nor_directories_are_keys(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    development_key(elsewhere, "ES256")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / SIGNING_KEY).symlink_to(elsewhere / SIGNING_KEY)
    (tmp_path / "dirs" / SIGNING_KEY).mkdir(parents=True)

    for name, why in (("links", "wants a file, and no link"), ("dirs", "no regular file")):
        with pytest.raises(DevelopmentKeyError, match=why):
            development_key(tmp_path / name, "ES256")


def test_nothing_is_made_beside_a_key_set_of_others(tmp_path: Path) -> None:
    (tmp_path / KEY_SET).write_text("{}")
    with pytest.raises(DevelopmentKeyError, match="it was not made here"):
        development_key(tmp_path, "ES256")

    assert (tmp_path / KEY_SET).read_text() == "{}"
    assert not (tmp_path / SIGNING_KEY).exists()
