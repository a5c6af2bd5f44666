"""Tokens of every kind, from five issuers: good ones, bad ones, and ones that readers read differently."""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from tests.envoy.judge import key_server
from tests.tokens import material

ISSUERS: Final[Mapping[str, tuple[str, ...]]] = {
    "https://idp.example": ("RS256", "ES256"),
    "https://idp.example/": ("ES256",),  # an issuer is compared to the letter
    "plain-issuer": ("EdDSA", "RS512"),
    "https://login.example/realms/x": ("PS256", "ES384"),
    key_server.DISCOVERED: ("ES256", "RS256"),
}
SYMMETRIC: Final = "symmetric algorithm"
STRANGER: Final = "https://stranger.example"
_HOUR: Final = 3600
_WITHIN_LEEWAY: Final = 20  # seconds; the leeway is 60, and the tokens of a batch are used for less than 40

# Changes to the claims of an ordinary token; None takes a claim out.
_CLAIMS: Final[tuple[Mapping[str, Any], ...]] = (
    {},
    {},
    {"sub": "bob", "role": "user", "groups": [], "aud": ["svc", "other"], "azp": None},
    {"sub": None},
    {"sub": "", "aud": "https://svc/"},
    {"sub": "team/alice", "aud": ["http://svc", "x"]},
    {"aud": None, "scope": "", "nested": {"team": ["red", "blue"], "deep": {"x": "y"}}},
    {"aud": [], "scope": "write", "permission": "a  b", "custom.claim": "x y", "a.b": "dotted"},
    {"role": ["admin", "user"], "groups": "dev ops", "nested": "flat", "level": 7, "ratio": 1.5, "ok": True},
    {"role": 5, "groups": ["ops", 3, None], "nested": [{"team": "red"}], "level": -3, "big": 2**62, "ok": None},
    {"role": "", "groups": [["dev"]], "scope": ["read", "write"], "level": 0, "ratio": -0.25, "ok": False},
    {
        "list": [2**53 + 1, 0.1, 1e16, -0.0, True, None, "<\u2028\xe9>", [], [{"a": "&"}]],
        "object": {"\xe9<": [1.0, {"x": "\x7f"}]},
        "role": "user",
        "level": 2**63 - 1,
    },
    {"list": ["a", 5], "object": {}, "groups": [], "nested": {"deep": {"x": [1, 2]}}},
    {"role": "admin,user", "note": "blank and, comma", "level": 2**53, "nested": {"team": None, "": "x"}},
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token as text. ``ambiguous``: not every reader would take it, so strict may refuse what Envoy accepts."""

    text: str
    issuer: str
    kind: str
    ambiguous: bool = False


def number(issuer: str) -> int:
    """The number of an issuer, by which its keys are told from others'."""
    return list(ISSUERS).index(issuer)


def jwks(issuer: str, variant: int) -> str:
    """The key set of an issuer, in one of several spellings."""
    which = number(issuer)
    without: Mapping[str, Any] = ({}, {}, {"kid": None}, {"alg": None}, {"kid": "shared"}, {"kid": None, "alg": None})[
        variant % 6
    ]
    # An Ed25519 key keeps its `alg`: without one Envoy tries it on an RSA token too, and ends there (wrong length).
    keeping = {name: value for name, value in without.items() if name != "alg"}
    keys = [
        material.jwk(algorithm, which, **(keeping if algorithm == "EdDSA" else without))
        for algorithm in ISSUERS[issuer]
    ]
    return json.dumps({"keys": keys})


def numbered_jwks(which: int, variant: int) -> str:
    """The key set of the issuer with a number."""
    return jwks(list(ISSUERS)[which], variant)


def mint(rng: Random) -> tuple[Token, ...]:
    """Several tokens of every kind and issuer, for the next half minute."""
    now = int(time.time())
    found: list[Token] = []
    for issuer in ISSUERS:
        found += [_token(rng, issuer, "good", _claims(issuer, now) | dict(patch)) for patch in _CLAIMS]
        found += [
            _token(rng, issuer, kind, claims, ambiguous=ambiguous)
            for kind, claims, ambiguous in _odd_claims(issuer, now)
        ]
        found += _odd_tokens(rng, issuer, _claims(issuer, now))
    found += [Token(text=text, issuer="", kind="garbage") for text in _GARBAGE]
    return tuple(found)


def _claims(issuer: str, now: int) -> dict[str, Any]:
    return {
        "iss": issuer, "sub": "alice", "aud": "svc", "azp": "cli", "exp": now + _HOUR, "iat": now - 10,
        "scope": "read write", "role": "admin", "groups": ["dev", "ops"], "nested": {"team": "red", "deep": {"x": "y"}},
    }  # fmt: skip


def _odd_claims(issuer: str, now: int) -> Iterator[tuple[str, dict[str, Any], bool]]:
    plain = _claims(issuer, now)
    yield "expired", plain | {"exp": now - _HOUR}, False
    yield "expired within the leeway", plain | {"exp": now - _WITHIN_LEEWAY}, False
    yield "not yet valid", plain | {"nbf": now + _HOUR}, False
    yield "not yet valid within the leeway", plain | {"nbf": now + _WITHIN_LEEWAY}, False
    yield "for somebody else", plain | {"aud": "elsewhere"}, False
    yield "for somebody else and expired", plain | {"aud": "elsewhere", "exp": now - _HOUR}, False
    yield "of a stranger", plain | {"iss": STRANGER}, False
    yield "without issuer", plain | {"iss": None}, False
    yield "issuer is a number", plain | {"iss": 5}, False
    yield "subject is a number", plain | {"sub": 5}, False
    yield "expiry is a text", plain | {"exp": "soon"}, False
    yield "negative expiry", plain | {"exp": -1}, False
    yield "fractional expiry", plain | {"exp": now + _HOUR + 0.5}, False
    yield "audience is a number", plain | {"aud": 5}, False
    yield "audience has a number", plain | {"aud": ["svc", 5]}, False
    yield "identifier is a number", plain | {"jti": 5}, False
    yield "never expires", plain | {"exp": None}, True
    yield "expires at zero", plain | {"exp": 0}, True
    yield "issued in the future", plain | {"iat": now + _HOUR}, True


def _token(
    rng: Random, issuer: str, kind: str, claims: Mapping[str, Any], *, ambiguous: bool = False, **header: Any
) -> Token:
    algorithm = rng.choice(ISSUERS[issuer])
    which = number(issuer)
    everything = {"alg": algorithm, "kid": f"{algorithm}-{which}", "typ": "JWT"} | header
    head = {name: value for name, value in everything.items() if value is not None}
    body = {name: value for name, value in claims.items() if value is not None or name in ("ok", "team")}
    text = material.sign(body, algorithm=algorithm, which=which, header=head)
    return Token(text=text, issuer=issuer, kind=kind, ambiguous=ambiguous)


def _odd_tokens(rng: Random, issuer: str, claims: Mapping[str, Any]) -> Iterator[Token]:
    good = _token(rng, issuer, "good", claims)
    yield _token(rng, issuer, "without kid", claims, kid=None)
    yield _token(rng, issuer, "unknown kid", claims, kid="nobody's")
    yield _token(rng, issuer, "shared kid", claims, kid="shared")
    yield _token(rng, issuer, "kid is a number", claims, kid=5)
    yield _token(rng, issuer, "without algorithm", claims, alg=None)
    yield _token(rng, issuer, "algorithm none", claims, alg="none")
    yield _token(rng, issuer, SYMMETRIC, claims, alg="HS256")
    yield _token(rng, issuer, "algorithm in lower case", claims, alg="rs256")
    yield _token(rng, issuer, "critical extension", claims, ambiguous=True, crit=["exp"])
    yield _token(rng, issuer, "of another type", claims, ambiguous=True, typ="dpop+jwt")
    head, body, signature = good.text.split(".")
    other = "A" if signature[5] != "A" else "B"
    forged = (
        ("forged signature", f"{head}.{body}.{signature[:5]}{other}{signature[6:]}"),
        ("no signature", f"{head}.{body}."),
        ("without signature", f"{head}.{body}"),
        ("four parts", f"{good.text}.{signature}"),
        ("other payload", f"{head}.{material.segment(dict(claims) | {'role': 'root'})}.{signature}"),
        ("payload is a list", f"{head}.{material.segment([])}.{signature}"),
        ("payload is no JSON", f"{head}.{material.encode(b'{')}.{signature}"),
        ("header is no JSON", f"{material.encode(b'x')}.{body}.{signature}"),
        ("payload is no base64url", f"{head}.{body}+/.{signature}"),
    )
    for kind, text in forged:
        yield Token(text=text, issuer=issuer, kind=kind)
    stolen = material.sign(dict(claims), algorithm="ES256", which=9, header={"alg": "ES256", "kid": "ES256-0"})
    yield Token(text=stolen, issuer=issuer, kind="by another key")


_GARBAGE: Final = (
    "",
    "x",
    "a.b",
    "a.b.c",
    "..",
    "not a token",
    "a..b.c",
    "eyJhbGciOiJSUzI1NiJ9.e30.",
    "%41.b.c",
    "null",
)
