"""Keys that sign tokens for development, in a directory that is made for them: nothing else is ever signed with.

The private key stays readable by its owner only. A key that was not made here is refused, so that nobody gets used
to signing with a real one: what is made here says so, in its file and in its `kid`.
"""

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from jwt.algorithms import Algorithm, ECAlgorithm, OKPAlgorithm, RSAAlgorithm, get_default_algorithms
from jwt.exceptions import InvalidKeyError

from countersign.mesh.issuer import ALGORITHMS, PrivateKey, encode_segment

SIGNING_KEY: Final = "signing-key.json"
KEY_SET: Final = "jwks.json"

_MARK: Final = "for development only, made by countersign token mint"
_PREFIX: Final = "development-"
_MAX_BYTES: Final = 64 * 1024
_THUMBPRINT_MEMBERS: Final = frozenset({"crv", "e", "kty", "n", "x", "y"})  # RFC 7638 3.2, RFC 8037 2
_READERS: Final[Mapping[str, type[ECAlgorithm | OKPAlgorithm | RSAAlgorithm]]] = {
    "RS256": RSAAlgorithm,
    "ES256": ECAlgorithm,
    "EdDSA": OKPAlgorithm,
}


class DevelopmentKeyError(Exception):
    """The directory cannot be used; the message says what is wrong and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DevelopmentKey:
    """A signing key and where its public half is. ``made``: just now."""

    algorithm: str
    kid: str
    private: PrivateKey
    key_set: Path
    made: bool

    @property
    def header(self) -> dict[str, str]:
        """The header of its tokens."""
        return {"alg": self.algorithm, "typ": "JWT", "kid": self.kid}

    def sign(self, claims: Mapping[str, Any]) -> str:
        """A token with these claims, in compact form."""
        text = ".".join(encode_segment(part) for part in (self.header, dict(claims)))
        signature = _algorithm(self.algorithm).sign(text.encode(), self.private)
        return f"{text}.{encode_segment(signature)}"


def development_key(directory: Path, algorithm: str) -> DevelopmentKey:
    """The key of this directory, made with its JWKS if there is none. Raise `DevelopmentKeyError` or OSError."""
    file = directory / SIGNING_KEY
    made = False
    if not os.path.lexists(file):
        _make(directory, algorithm)
        made = True
    return _read(file, algorithm, made=made)


def _make(directory: Path, algorithm: str) -> None:
    if os.path.lexists(directory / KEY_SET):
        raise DevelopmentKeyError(f"{directory / KEY_SET} is there without {SIGNING_KEY}: it was not made here")
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    private = ALGORITHMS[algorithm]()
    public = _public(algorithm, private)
    jwk = {**_algorithm(algorithm).to_jwk(private, as_dict=True), **public}
    jwk.pop("key_ops", None)
    _write(directory / SIGNING_KEY, {"countersign": _MARK, "key": jwk}, 0o600)
    _write(directory / KEY_SET, {"keys": [public]}, 0o644)


def _write(file: Path, value: object, mode: int) -> None:
    """Make a file that was not there, readable by whom it should be from the first moment on."""
    number = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with os.fdopen(number, "w") as stream:
        json.dump(value, stream, indent=2)
        stream.write("\n")


def _read(file: Path, algorithm: str, *, made: bool) -> DevelopmentKey:
    private, public = _own(_octets(file))
    if private is None:
        raise DevelopmentKeyError(f"{file} was not made by `countersign token mint`, which signs with nothing else")
    if public["alg"] != algorithm:
        raise DevelopmentKeyError(f"{file} is a key for {public['alg']}; for {algorithm} give --keys another directory")
    key_set = file.parent / KEY_SET
    if not os.path.lexists(key_set):
        _write(key_set, {"keys": [public]}, 0o644)
    return DevelopmentKey(algorithm=algorithm, kid=public["kid"], private=private, key_set=key_set, made=made)


def _own(octets: bytes) -> tuple[PrivateKey | None, dict[str, str]]:
    """The key that `_make` has written, and its public half; None if it did not write this."""
    try:
        document = json.loads(octets)
        jwk, mark = document["key"], document["countersign"]
        private: Any = _READERS[jwk["alg"]].from_jwk(jwk)
        public = _public(jwk["alg"], private)
    except (ValueError, KeyError, TypeError, AttributeError, InvalidKeyError, RecursionError):
        return None, {}
    own = mark == _MARK and all(jwk.get(name) == value for name, value in public.items())
    return (private if own else None), public


def _octets(file: Path) -> bytes:
    """The private key's file, if it is a file of this user that nobody else can read."""
    try:
        number = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise DevelopmentKeyError(f"{file}: {error.strerror}; wants a file, and no link") from error
    try:
        status = os.fstat(number)
        if not stat.S_ISREG(status.st_mode):
            raise DevelopmentKeyError(f"{file}: no regular file")
        if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
            raise DevelopmentKeyError(f"{file}: others can read or write it; chmod 600 it, or remove it for a new one")
        return os.read(number, _MAX_BYTES)
    finally:
        os.close(number)


def _public(algorithm: str, private: PrivateKey) -> dict[str, str]:
    """The key as it is published, its `kid` from its thumbprint (RFC 7638)."""
    jwk = _algorithm(algorithm).to_jwk(private.public_key(), as_dict=True)
    members = {name: str(value) for name, value in jwk.items() if name in _THUMBPRINT_MEMBERS}
    text = json.dumps(members, separators=(",", ":"), sort_keys=True)
    kid = _PREFIX + encode_segment(hashlib.sha256(text.encode()).digest())[:16]
    return {**members, "kid": kid, "alg": algorithm, "use": "sig"}


def _algorithm(name: str) -> Algorithm:
    return get_default_algorithms()[name]
