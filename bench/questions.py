"""What every arm must decide alike before it is timed: a request that is let pass, and others, one thing apart."""

import time
from dataclasses import dataclass
from typing import Final

from countersign.mesh.issuer import Issuer
from countersign.wire import auth_pb2

from bench import material

_LONG_AGO: Final = 3600  # seconds: beyond anybody's leeway


@dataclass(frozen=True, slots=True)
class Question:
    """A serialized CheckRequest, and what every arm must answer."""

    about: str
    message: bytes
    expected: str


def questions(recorded: bytes, rules: int, issuer: Issuer) -> list[Question]:
    """The questions to an arm with so many rules. Headers as `encode_raw_headers` sends them."""
    path = material.request_path(rules)
    claims = material.claims(0)
    past = {"iat": claims["iat"] - 2 * _LONG_AGO, "exp": int(time.time()) - _LONG_AGO}

    def ask(token: str, path: str = path) -> bytes:
        return material.with_tokens(recorded, path, [token])[0]

    good = issuer.sign(claims)
    signed = {algorithm: issuer.sign(claims, algorithm=algorithm) for algorithm in material.ALGORITHMS}
    return [
        *(Question(f"a token of {algorithm}", ask(token), "allow") for algorithm, token in signed.items()),
        Question("another key's signature", ask(issuer.forge(claims)), "deny"),
        Question("no signature", ask(issuer.unsigned(claims)), "deny"),
        Question("the public key as a secret", ask(issuer.confuse(claims)), "deny"),
        Question("another group", ask(issuer.sign({**claims, "groups": ["staff"]})), "deny"),
        Question("another issuer", ask(issuer.sign({**claims, "iss": "https://other.example"})), "deny"),
        Question("another audience", ask(issuer.sign({**claims, "aud": "other"})), "deny"),
        Question("an expired token", ask(issuer.sign({**claims, **past})), "deny"),
        Question("no token", _without_token(ask(good)), "deny"),
        Question("another path", ask(good, "/api/other/orders"), "deny"),
        Question("another rule's path", ask(good, "/api/0/orders"), "deny"),
        Question("another method", _with_method(ask(good), "POST"), "deny"),
        Question("another workload", _from(ask(good), "cluster.local/ns/apps/sa/other"), "deny"),
    ]


def _without_token(message: bytes) -> bytes:
    request = auth_pb2.CheckRequest.FromString(message)
    lines = request.attributes.request.http.header_map.headers
    kept = [line for line in lines if line.key != "authorization"]
    del lines[:]
    lines.extend(kept)
    return request.SerializeToString()


def _with_method(message: bytes, method: str) -> bytes:
    request = auth_pb2.CheckRequest.FromString(message)
    http = request.attributes.request.http
    http.method = method
    next(line for line in http.header_map.headers if line.key == ":method").raw_value = method.encode()
    return request.SerializeToString()


def _from(message: bytes, principal: str) -> bytes:
    """Both proofs of the workload: what Envoy verified, and the header that it writes of it."""
    request = auth_pb2.CheckRequest.FromString(message)
    request.attributes.source.principal = f"spiffe://{principal}"
    lines = request.attributes.request.http.header_map.headers
    certificate = next(line for line in lines if line.key == "x-forwarded-client-cert")
    certificate.raw_value = certificate.raw_value.replace(material.CALLER.encode(), principal.encode())
    return request.SerializeToString()
