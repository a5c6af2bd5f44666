"""Keys, tokens, rules and requests for the tests of `countersign.tokens`: real ones, made here."""

import base64
import functools
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from countersign.core.facts import Headers, HttpRequest
from countersign.core.jwt_rule import InlineKeys, JwtRule, KeySource, RemoteKeys
from countersign.tokens.keys import KeySet
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms

NOW: Final = 1_800_000_000
ISSUER: Final = "https://idp.example"
AUDIENCE: Final = "svc"
CLAIMS: Final[Mapping[str, Any]] = {"iss": ISSUER, "sub": "alice", "aud": AUDIENCE, "exp": NOW + 600}
REMOTE: Final = RemoteKeys("https://idp.example/jwks.json")
ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


@functools.cache
def private_key(algorithm: str, which: int = 0) -> PrivateKey:
    """A key that can sign with the algorithm; ``which`` tells several of them apart."""
    assert which >= 0
    match algorithm:
        case "ES256":
            return ec.generate_private_key(ec.SECP256R1())
        case "ES384":
            return ec.generate_private_key(ec.SECP384R1())
        case "ES512":
            return ec.generate_private_key(ec.SECP521R1())
        case "EdDSA":
            return ed25519.Ed25519PrivateKey.generate()
        case "RS256":
            return rsa.generate_private_key(public_exponent=65537, key_size=2048)
        case _:
            return private_key("RS256", which)


def jwk(algorithm: str, which: int = 0, **members: Any) -> dict[str, Any]:
    """The public half as a JWK, with ``kid`` and ``alg``; a member given as None is left out."""
    public = private_key(algorithm, which).public_key()
    plain = get_default_algorithms()[algorithm].to_jwk(public, as_dict=True)
    plain.pop("key_ops", None)
    every = {"kid": f"{algorithm}-{which}", "alg": algorithm, **plain, **members}
    return {name: value for name, value in every.items() if value is not None}


def key_set(*jwks: Mapping[str, Any]) -> KeySet:
    """A key set of these members, or of one key for each algorithm."""
    members = jwks or tuple(jwk(algorithm) for algorithm in ALGORITHMS)
    return KeySet.parse(json.dumps({"keys": members}))


def encode(octets: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def segment(value: object) -> str:
    """A JSON value as a segment of a token."""
    return encode(json.dumps(value).encode())


def sign(
    claims: Mapping[str, Any] | bytes | None = None,
    *,
    algorithm: str = "RS256",
    which: int = 0,
    header: Mapping[str, Any] | bytes | None = None,
) -> str:
    """A token signed with ``private_key(algorithm, which)``; claims and header may be anything, even raw octets."""
    head = {"alg": algorithm, "kid": f"{algorithm}-{which}"} if header is None else header
    body = CLAIMS if claims is None else claims
    parts = (part if isinstance(part, bytes) else json.dumps(part).encode() for part in (head, body))
    text = ".".join(encode(part) for part in parts)
    return f"{text}.{encode(signature(text, algorithm, which))}"


def signature(text: str, algorithm: str, which: int = 0) -> bytes:
    """The octets of a signature of the signing input."""
    return get_default_algorithms()[algorithm].sign(text.encode(), private_key(algorithm, which))


def rule(issuer: str = ISSUER, *, keys: KeySource = REMOTE, **fields: Any) -> JwtRule:
    """A rule of a made-up policy."""
    return JwtRule(issuer=issuer, keys=keys, policy="ns/name", source="policy.yaml:1", **fields)


def inline(*jwks: Mapping[str, Any]) -> InlineKeys:
    """An inline key source."""
    return InlineKeys(json.dumps({"keys": jwks}))


def request(*headers: tuple[str, str], path: str = "/", method: str = "GET", joined: bool = False) -> HttpRequest:
    """A request with these headers."""
    return HttpRequest(method=method, path=path, host="svc", headers=Headers.of(headers, joined=joined))


def bearer(token: str, *more: tuple[str, str]) -> HttpRequest:
    """A request with this bearer token."""
    return request(("authorization", f"Bearer {token}"), *more)


def vectors(path: str) -> Any:
    """A file of test vectors below COUNTERSIGN_DATA (relative to the repository), or a skipped test."""
    folder = os.environ.get("COUNTERSIGN_DATA")
    if not folder:
        pytest.skip("COUNTERSIGN_DATA does not name the folder of the test vectors")
    root = Path(__file__).resolve().parents[2]
    return json.loads((root / folder / "vectors" / path).read_text(encoding="utf-8"))


def cases(path: str, member: str) -> list[Any]:
    """One list of a file of vectors."""
    found = vectors(path)[member]
    assert found
    return list(found)


def json_test_suite() -> list[tuple[str, bytes]]:
    """Every file of nst/JSONTestSuite: its name and its octets."""
    suite = []
    for case in cases("json/json_test_suite.json", "cases"):
        if "b64" in case:
            suite.append((case["name"], base64.b64decode(case["b64"])))
        else:  # the two large ones are written as a text and how often
            text, count = case["repeat"]
            suite.append((case["name"], text.encode() * count))
    return suite
