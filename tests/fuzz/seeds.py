"""What fuzzing begins with: our own good inputs, and every shared vector of the target."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from countersign.wire import auth_pb2 as pb
from google.protobuf import json_format

from tests.edge.serving import request
from tests.fuzz.targets import CLAIMS, GOOD, SLEEP
from tests.tokens import material

_ROOT: Final = Path(__file__).resolve().parents[2]


def seeds(target: str) -> list[bytes]:
    """Distinct inputs of a target; without the shared vectors, our own."""
    return list(dict.fromkeys(_SEEDS[target]()))


def _check() -> Iterator[bytes]:
    for path in ("/headers", "/status/200?access_token=x", "/status/secret", "//headers"):
        for method in ("GET", "POST"):
            yield request(method, path).SerializeToString()
    token = {"authorization": f"Bearer {GOOD[-1]}", "x-user": "root"}
    yield request("POST", "/", headers=token).SerializeToString()
    yield request("GET", f"/?access_token={GOOD[-1]}").SerializeToString()
    yield request("GET", "/headers", headers={"x-forwarded-client-cert": f"Hash=ab;URI={SLEEP}"}).SerializeToString()
    for line in _lines("checkrequests/envoy-1.40.jsonl"):
        message = json_format.ParseDict(line, pb.CheckRequest(), ignore_unknown_fields=True)
        yield message.SerializeToString()
        message.attributes.source.principal = SLEEP
        message.attributes.request.http.method, message.attributes.request.http.path = "GET", "/headers"
        yield message.SerializeToString()


def _xfcc() -> Iterator[bytes]:
    yield f'By=spiffe://td/a;Hash=ab;Subject="CN=\\"x\\"";URI={SLEEP};DNS=a.b'.encode()
    yield json.dumps([{"by": "spiffe://td/a", "hash": "ab", "uri": [SLEEP], "dns": ["a.b"]}]).encode()
    for row in _vectors("xfcc/xfcc_cases.json", "cases"):
        repeated = "".join(text * count for text, count in row.get("xfcc_repeat", ()))
        yield _bytes(row.get("xfcc", repeated))


def _spiffe() -> Iterator[bytes]:
    yield SLEEP.encode()
    for row in _vectors("spiffe/spiffe_id_cases.json", "cases"):
        yield _bytes(row["id"])


def _jwt() -> Iterator[bytes]:
    head, body = ({"alg": "EdDSA", "kid": "EdDSA-0", "typ": "JWT"}, dict(CLAIMS))
    yield from (token.encode() for token in GOOD)
    yield b"\x01" + b"\n".join(json.dumps(part).encode() for part in (head, body))
    yield b"\x02" + b"\n".join((json.dumps(head).encode(), json.dumps(body).encode(), b"s" * 64))
    for row in _vectors("jwt/jwt_adversarial_cases.json", "cases"):
        claims = body | {name: value for name, value in row.get("claims_patch", {}).items() if value != "<absent>"}
        if "header" in row or "claims_patch" in row:
            header = {**row.get("header", head), "alg": "EdDSA", "kid": "EdDSA-0"}
            yield b"\x01" + b"\n".join(json.dumps(part).encode() for part in (header, claims))
        if row.get("raw_payload"):
            yield b"\x01" + json.dumps(head).encode() + b"\n" + _bytes(row["raw_payload"])
        if row.get("raw"):
            yield _bytes(row["raw"])
    for group in _vectors("wycheproof/json_web_signature_test.json", "testGroups"):
        yield from (_bytes(test["jws"]) for test in group["tests"] if isinstance(test["jws"], str))


def _jwks() -> Iterator[bytes]:
    yield json.dumps({"keys": [material.jwk(name) for name in material.ALGORITHMS]}).encode()
    yield from (json.dumps({"keys": [material.jwk(name)]}).encode() for name in material.ALGORITHMS)
    for row in _vectors("jwt/jwks_adversarial_cases.json", "keys"):
        yield json.dumps({"keys": [row["key"]]}).encode()
    for row in _vectors("jwt/jwks_adversarial_cases.json", "sets"):
        yield _bytes(row["body"])
    for group in _vectors("wycheproof/json_web_key_test.json", "testGroups"):
        yield json.dumps(group.get("public") or group["private"]).encode()


_SEEDS: Final[Mapping[str, Callable[[], Iterator[bytes]]]] = {
    "check": _check,
    "xfcc": _xfcc,
    "spiffe": _spiffe,
    "jwt": _jwt,
    "jwks": _jwks,
}


def _bytes(text: object) -> bytes:
    written = text if isinstance(text, str) else json.dumps(text)
    return written.encode("utf-8", "surrogatepass")


def _vectors(path: str, member: str) -> list[Any]:
    return list(json.loads(_shared(f"vectors/{path}") or "{}").get(member, ()))


def _lines(path: str) -> list[Any]:
    return [json.loads(line) for line in _shared(path).splitlines() if line]


def _shared(path: str) -> str:
    folder = os.environ.get("COUNTERSIGN_DATA")
    return (_ROOT / folder / path).read_text(encoding="utf-8") if folder else ""
