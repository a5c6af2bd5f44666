"""Every row of the corpus of hostile JWKS: its key or its set gives what is expected, and no row is passed over.

Rows describe what is too large or too variable to be written down. Here it is made, and the rows about fetching name
the test, over a real connection, that holds them.
"""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from countersign.tokens.keys import KeySet, KeySetError
from cryptography.hazmat.primitives.asymmetric import ec

from tests.tokens.material import cases, encode, jwk, key_set, vectors

_CORPUS: Final = "jwt/jwks_adversarial_cases.json"
_TESTS: Final = Path(__file__).parent.parent
_P521: Final = 66  # octets of a coordinate


def _odd(bits: int) -> str:
    """A number of so many bits that could be a modulus or an exponent."""
    return encode(((1 << (bits - 1)) | 1).to_bytes((bits + 7) // 8))


def _even(n: str) -> str:
    return encode((int.from_bytes(base64.urlsafe_b64decode(n + "==")) - 1).to_bytes(256))


def _short_coordinate() -> dict[str, Any]:
    """A P-521 key of which one coordinate begins with a zero octet, which is left out."""
    while True:
        point = ec.generate_private_key(ec.SECP521R1()).public_key().public_numbers()
        if point.y < 1 << 8 * (_P521 - 1):
            x, y = point.x.to_bytes(_P521), point.y.to_bytes(_P521 - 1)
            return {"kty": "EC", "crv": "P-521", "x": encode(x), "y": encode(y)}


def _roca() -> str:
    """The modulus of Wycheproof's key with the flaw."""
    groups = vectors("wycheproof/json_web_key_test.json")["testGroups"]
    (group,) = (group for group in groups if any(test["tcId"] == 7 for test in group["tests"]))
    return str(group["public"]["keys"][0]["n"])


def _member(name: str, key: Any) -> Any:
    """The key of a row, with what it only describes made."""
    if not isinstance(key, dict):
        return key
    made = {member: _made(value) for member, value in key.items()}
    if "x_hex" in made:
        made["x"] = encode(bytes.fromhex(made.pop("x_hex")))
    if key.get("crv") == "P-521":
        return _short_coordinate()
    if key.get("x") == "..":
        made |= {member: jwk("ES256")[member] for member in ("x", "y")}
    if "kid" in made:
        made = jwk("RS256") | made
    if name.startswith("OKP") and key.get("x") == "<32>":
        made["x"] = jwk("EdDSA")["x"]
    return made


_MADE: Final[dict[str, Callable[[], Any]]] = {
    "<2048>": lambda: jwk("RS256")["n"],
    "<2048 even>": lambda: _even(jwk("RS256")["n"]),
    "<1024>": lambda: _odd(1024),
    "<512>": lambda: _odd(512),
    "<2400>": lambda: _odd(2400),
    "<16384>": lambda: _odd(16384),
    "<8388608>": lambda: _odd(4_194_304),  # half: the whole would make the document too long
    "<32>": lambda: encode(bytes(31) + b"\x07"),
    "<57>": lambda: encode(bytes(56) + b"\x07"),
    "A*43": lambda: "A" * 43,
    "k*1048576": lambda: "k" * 524_288,  # half, likewise
    "not base64url": lambda: "+" + jwk("RS256")["n"][1:-1] + "=",
    "...": lambda: encode(b"\x07" * 256),
    "Wycheproof json_web_key tc7": _roca,
}


def _made(value: Any) -> Any:
    make = _MADE.get(value) if isinstance(value, str) else None
    return make() if make else value


def _rows(part: str) -> list[tuple[str, Any]]:
    return [(row["name"], row) for row in cases(_CORPUS, part)]


# Rows that do not want the key to be put aside: what is decided, and for several keys, of which sets.
_DECIDED: Final = {
    "EC short coordinate": 0,  # RFC 7518 6.2.1.2 forbids it
    "OKP Ed25519 no alg": 1,
    "OKP Ed448 no alg": 0,  # no algorithm of ours
    "OKP alg 'Ed25519' (RFC 9864)": 0,  # Envoy refuses it too
    "duplicate kid, same key": 1,
    "duplicate kid, different keys": 1,
    "kid same text as another provider's": 1,
}


def test_each_hostile_key_is_put_aside_or_decided_about_and_its_neighbours_stay_usable() -> None:
    rows = _rows("keys")
    assert len(rows) == 56
    assert {name for name, _ in rows} >= _DECIDED.keys()
    for name, row in rows:
        member = _member(name, row["key"])
        assert ("<" in json.dumps(member)) is False, name
        keys = key_set(jwk("ES256"), member, jwk("EdDSA"))
        assert [key.kid for key in keys.keys][:: len(keys.keys) - 1] == ["ES256-0", "EdDSA-0"], name
        assert len(keys.keys) - 2 == _DECIDED.get(name, 0), name
        assert len(keys.keys) + len(keys.rejected) == 3, name
        assert name in _DECIDED or "skip" in row["expect"], name


def test_keys_of_one_kid_are_each_tried_and_the_same_key_twice_is_no_harm() -> None:
    same, other = jwk("RS256", kid="a"), jwk("ES256", kid="a")
    assert {key.kid for key in key_set(same, same).keys} == {"a"}
    assert [key.kid for key in key_set(same, other).keys] == ["a", "a"]


# Sets that can be written down: whether they are refused. An empty one is none that the keyring would take.
_SETS: Final[dict[str, Callable[[], str | bytes]]] = {
    "10,000 keys": lambda: json.dumps({"keys": [jwk("ES256")] * 10_000}),
    "duplicate top-level keys": lambda: f'{{"keys": [], "keys": [{json.dumps(jwk("ES256"))}]}}',
    "UTF-16 body": lambda: json.dumps({"keys": [jwk("ES256")]}).encode("utf-16"),
    "trailing comma": lambda: f'{{"keys": [{json.dumps(jwk("ES256"))},]}}',
}

# Rows about what comes over a connection, and rows that others hold: the test, by file and name.
_FETCH: Final = "edge/keys/test_fetch.py"
_ELSEWHERE: Final = {
    "64 MiB body": (_FETCH, "test_a_body_that_is_no_key_set_is_a_failure"),
    "slow body 1 B/s": (_FETCH, "test_the_timeout_bounds_the_whole_fetch_however_slowly_octets_drip"),
    "gzip bomb 10 MiB -> 10 GiB": (_FETCH, "test_a_compressed_body_is_refused_and_never_unpacked"),
    "redirect to http://169.254.169.254/": (_FETCH, "test_no_redirect_is_followed_wherever_it_leads"),
    "redirect https -> http": (_FETCH, "test_no_redirect_is_followed_wherever_it_leads"),
    "TLS wrong host / expired / self-signed": (
        _FETCH,
        "test_tls_is_verified_against_the_trusted_authorities_and_the_name",
    ),
    "500 / 429 / 403": (_FETCH, "test_any_status_but_200_is_a_failure"),
    "DNS rebinding between validate and connect": (
        "edge/keys/test_connect.py",
        "test_a_name_is_resolved_once_and_cannot_be_rebound_after_the_check",
    ),
    "set shrinks to attacker key (cache poisoning)": (
        "edge/keys/test_fetcher.py",
        "test_keys_that_come_go_and_are_put_aside_are_told_once_with_their_thumbprints",
    ),
    "PyJWK raising for one member": (
        "tokens/test_jwks_corpus.py",
        "test_each_hostile_key_is_put_aside_or_decided_about_and_its_neighbours_stay_usable",
    ),
}
_EMPTY: Final = "keys empty"  # read as what it says; the keyring keeps the old set then


def test_each_hostile_set_is_refused_or_held_by_a_test_over_a_connection() -> None:
    rows = _rows("sets")
    assert len(rows) == 22
    for name, row in rows:
        if name in _ELSEWHERE:
            file, test = _ELSEWHERE[name]
            assert f"def {test}(" in (_TESTS / file).read_text(encoding="utf-8"), name
            continue
        body: str | bytes = _SETS[name]() if name in _SETS else str(row["body"])
        if name == _EMPTY:
            assert KeySet.parse(row["body"]).keys == ()
            continue
        with pytest.raises((KeySetError, UnicodeDecodeError)):
            KeySet.parse(str(body, "utf-8") if isinstance(body, bytes) else body)
    assert {name for name, _ in rows} >= _ELSEWHERE.keys() | _SETS.keys() | {_EMPTY}
