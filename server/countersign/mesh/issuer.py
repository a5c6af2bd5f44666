"""A real token issuer for the demo mesh and the tests: fresh keys, signed tokens, forged ones, a JWKS over HTTP.

Nothing touches the disk, and the keys end with the process.
"""

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, Self, cast

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import Algorithm, get_default_algorithms

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

ALGORITHMS: Final[Mapping[str, Callable[[], PrivateKey]]] = {
    "RS256": lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
}
_THUMBPRINT_MEMBERS: Final = frozenset({"crv", "e", "kty", "n", "x", "y"})  # RFC 7638 3.2, RFC 8037 2


@dataclass(frozen=True, slots=True, kw_only=True)
class _SigningKey:
    algorithm: str
    private: PrivateKey
    jwk: Mapping[str, Any]  # the public half, as published


class Issuer:
    """One issuer with a current key for each of `ALGORITHMS`. Not thread-safe to rotate, safe to read meanwhile."""

    def __init__(self, issuer: str) -> None:
        self.issuer = issuer
        self._current = {algorithm: _new_key(algorithm) for algorithm in ALGORITHMS}
        self._published = tuple(self._current.values())
        self._impostors: dict[str, PrivateKey] = {}

    def sign(
        self, claims: Mapping[str, Any], *, algorithm: str = "RS256", headers: Mapping[str, Any] | None = None
    ) -> str:
        """Sign with the current key of the algorithm. ``iss`` is ours unless given; a None header is omitted."""
        key = self._current[algorithm]
        return self._token(claims, self._header(algorithm, headers), algorithm, key.private)

    def unsigned(self, claims: Mapping[str, Any], *, algorithm: str = "none") -> str:
        """A token that says ``alg: none`` (or another spelling of it) and carries an empty signature."""
        return f"{self._signing_input(claims, {'alg': algorithm, 'typ': 'JWT'})}."

    def forge(
        self, claims: Mapping[str, Any], *, algorithm: str = "RS256", headers: Mapping[str, Any] | None = None
    ) -> str:
        """A token with the current ``kid`` and another key's signature."""
        impostor = self._impostors.get(algorithm) or self._impostors.setdefault(algorithm, ALGORITHMS[algorithm]())
        return self._token(claims, self._header(algorithm, headers), algorithm, impostor)

    def confuse(self, claims: Mapping[str, Any]) -> str:
        """An HS256 token whose secret is the PEM of the published RSA key (algorithm confusion, RFC 8725 2.1)."""
        public = self._current["RS256"].private.public_key()
        secret = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        text = self._signing_input(claims, {**self._header("RS256", None), "alg": "HS256"})
        # PyJWT refuses a PEM as an HMAC secret, as it should: sign by hand.
        return f"{text}.{_base64url(hmac.digest(secret, text.encode(), 'sha256'))}"

    def rotate(self, algorithm: str = "RS256", *, keep_old: bool = True) -> None:
        """Sign with a fresh key from now on. ``keep_old`` says whether the old one stays published."""
        old, new = self._current[algorithm], _new_key(algorithm)
        self._current[algorithm] = new
        self._published = (*(key for key in self._published if keep_old or key is not old), new)

    def kid(self, algorithm: str = "RS256") -> str:
        """The key ID of the current key."""
        return cast("str", self._current[algorithm].jwk["kid"])

    def jwks(self) -> dict[str, Any]:
        """The public keys, as RFC 7517 has them."""
        return {"keys": [dict(key.jwk) for key in self._published]}

    def _header(self, algorithm: str, headers: Mapping[str, Any] | None) -> dict[str, Any]:
        merged = {"alg": algorithm, "typ": "JWT", "kid": self.kid(algorithm), **(headers or {})}
        return {name: value for name, value in merged.items() if value is not None}

    def _token(self, claims: Mapping[str, Any], header: Mapping[str, Any], algorithm: str, key: PrivateKey) -> str:
        text = self._signing_input(claims, header)
        return f"{text}.{_base64url(_algorithm(algorithm).sign(text.encode(), key))}"

    def _signing_input(self, claims: Mapping[str, Any], header: Mapping[str, Any]) -> str:
        payload = {"iss": self.issuer, **claims}
        return f"{_base64url(_json(header))}.{_base64url(_json(payload))}"


class IssuerServer:
    """``/jwks.json`` of an issuer over HTTP on 127.0.0.1, from entering the context to leaving it.

    Tests may set at any time: ``status``, ``delay`` (seconds before an answer), ``body`` (instead of the key set) and
    ``headers`` (in addition).
    """

    def __init__(self, issuer: Issuer, *, port: int = 0) -> None:
        self.issuer = issuer
        self.status: int = HTTPStatus.OK
        self.delay = 0.0
        self.body: bytes | None = None
        self.headers: Mapping[str, str] = {}
        self._fetches = 0
        self._lock = threading.Lock()
        self._leaving = threading.Event()
        self._server = _Server(("127.0.0.1", port), _handler(self._answer))
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, name="issuer", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leaving.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def jwks_uri(self) -> str:
        """Where the key set is."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/jwks.json"

    @property
    def fetches(self) -> int:
        """How many requests for the key set have arrived."""
        return self._fetches

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        if request.path.partition("?")[0] != "/jwks.json":
            request.send_error(HTTPStatus.NOT_FOUND)
            return
        with self._lock:
            self._fetches += 1
        self._leaving.wait(self.delay)
        body = _json(self.issuer.jwks()) if self.body is None else self.body
        headers = {"Content-Type": "application/jwk-set+json", "Content-Length": str(len(body)), **self.headers}
        request.send_response(self.status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A caller that gave up is what some tests are about, and nobody reads this server's stderr."""


def _handler(answer: Callable[[BaseHTTPRequestHandler], None]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the overridden signature)
            """Stay quiet."""

    return Handler


def _new_key(algorithm: str) -> _SigningKey:
    private = ALGORITHMS[algorithm]()
    jwk = _algorithm(algorithm).to_jwk(private.public_key(), as_dict=True)
    members = {name: value for name, value in jwk.items() if name in _THUMBPRINT_MEMBERS}
    thumbprint = hashlib.sha256(json.dumps(members, separators=(",", ":"), sort_keys=True).encode()).digest()
    kid = f"{algorithm.lower()}-{_base64url(thumbprint)[:8]}"
    return _SigningKey(
        algorithm=algorithm, private=private, jwk={**members, "kid": kid, "alg": algorithm, "use": "sig"}
    )


def _algorithm(name: str) -> Algorithm:
    return get_default_algorithms()[name]


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _base64url(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def encode_segment(value: Mapping[str, Any] | bytes) -> str:
    """A segment of a token: octets, or a JSON object, in base64url."""
    return _base64url(value if isinstance(value, bytes) else _json(value))
