"""No piece of a token leaves the process but where a rule asks for it: every vector, in every place, at debug level.

A leak is any sixteen characters in a row of a token's payload or signature.
"""

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import grpc
import pytest
from countersign.wire import auth_pb2 as pb
from countersign.wire.codec import METHOD

from tests.cli.explaining import Explain
from tests.cli.serving import Serve
from tests.tokens import material

GRAM: Final = 16  # characters
ROOT: Final = Path(__file__).resolve().parents[2]
CLAIMS: Final = {**material.CLAIMS, "exp": 2**33}
LONGEST: Final = 60_000  # characters that Envoy lets through in all headers

POLICIES: Final = """\
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: default, namespace: apps}
spec: {jwtRules: [{issuer: 'https://idp.example', jwks: 'JWKS', audiences: [svc]}]}
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: elsewhere, namespace: apps}
spec:
  jwtRules:
  - issuer: https://idp.example
    jwks: 'JWKS'
    fromHeaders: [{name: x-jwt, prefix: 'Token '}, {name: x-odd}]
    fromParams: [token]
    fromCookies: [session]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: lookers, namespace: apps}
spec:
  action: DENY
  rules:
  - when: [{key: 'request.headers[x-seen]', values: ['*']}]
  - when: [{key: 'request.headers[authorization]', values: ['*x']}, {key: 'request.headers[cookie]', values: ['*x']}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: readers, namespace: apps}
spec: {rules: [{from: [{source: {requestPrincipals: ['*/nobody']}}], to: [{operation: {paths: [/read]}}]}]}
"""

Place = Callable[[str], tuple[str, list[tuple[str, str]]]]  # a token to a path and headers
PLACES: Final[tuple[Place, ...]] = (
    lambda token: ("/read", [("authorization", f"Bearer {token}")]),
    lambda token: ("/read", [("authorization", token)]),
    lambda token: ("/read", [("authorization", f"Bearer {token}"), ("authorization", f"Bearer {token}")]),
    lambda token: (f"/read?access_token={quote(token)}", []),
    lambda token: (f"/read?a=b&token={quote(token)}&c", []),
    lambda token: (f"/read?other={quote(token)}", [("authorization", "Bearer x")]),
    lambda token: ("/read", [("x-jwt", f"Token {token}")]),
    lambda token: ("/read", [("x-odd", token), ("x-odd", token[:-1])]),
    lambda token: ("/read", [("cookie", f"a=b; session={token}")]),
    lambda token: ("/read", [("x-seen", token)]),
    lambda token: ("/read", [("x-forwarded-client-cert", f"By={token}")]),
    lambda token: ("/read", [("x-forwarded-for", token), ("user-agent", token)]),
)


def tokens() -> list[str]:
    """Good and bad ones of our own, and every shared vector that is a token or becomes one."""
    found = [material.sign(CLAIMS, algorithm=name) for name in material.ALGORITHMS]
    found += [material.sign({**CLAIMS, **changed}) for changed in ({"exp": 1}, {"aud": "x"}, {"iss": "x"}, {"sub": 5})]
    found += [material.sign(CLAIMS, header={"alg": alg, "kid": "x"}) for alg in ("none", "HS256", "RS256")]
    for row in _vectors("jwt/jwt_adversarial_cases.json", "cases"):
        claims = CLAIMS | {name: value for name, value in row.get("claims_patch", {}).items() if value != "<absent>"}
        if "header" in row or "claims_patch" in row:
            found.append(material.sign(claims, header=row.get("header")))
        if row.get("raw_payload"):
            found.append(material.sign(row["raw_payload"].encode("utf-8", "surrogatepass")))
    for group in _vectors("wycheproof/json_web_signature_test.json", "testGroups"):
        found += [test["jws"] for test in group["tests"] if isinstance(test["jws"], str)]
    found += [case["jws"] for case in _vectors("rfc/rfc_examples.json", "jws_cases") if "jws" in case]
    return [token for token in found if len(token) < LONGEST]


def _vectors(path: str, member: str) -> list[Any]:
    folder = os.environ.get("COUNTERSIGN_DATA")
    text = (ROOT / folder / "vectors" / path).read_text(encoding="utf-8") if folder else "{}"
    return list(json.loads(text).get(member, ()))


def grams(text: str) -> set[str]:
    return {text[at : at + GRAM] for at in range(len(text) - GRAM + 1)}


def secrets(token: str) -> set[str]:
    """What must not be seen: the payload and the signature in pieces; nothing of a segment that is one letter."""
    return {gram for segment in token.split(".")[1:] for gram in grams(segment) if len(set(gram)) > 2}


def checks(token: str) -> Iterator[bytes]:
    """A CheckRequest with the token in each place."""
    for place in PLACES:
        path, lines = place(token)
        message = pb.CheckRequest()
        attributes = message.attributes
        attributes.source.principal = "spiffe://cluster.local/ns/apps/sa/sleep"
        attributes.destination.address.socket_address.port_value = 8080
        http = attributes.request.http
        http.method, http.path, http.host, http.scheme = "GET", path, "svc", "https"
        for name, value in ((":method", "GET"), (":path", path), (":authority", "svc"), *lines):
            http.header_map.headers.add(key=name, raw_value=value.encode("utf-8", "surrogateescape"))
        yield message.SerializeToString()


@pytest.mark.parametrize(("transport", "posture"), [("native", "strict"), ("grpcio", "istio")])
def test_no_answer_and_no_log_has_a_piece_of_a_token(tmp_path: Path, transport: str, posture: str) -> None:
    policies = tmp_path / "policies.yaml"
    jwks = json.dumps({"keys": [material.jwk(name) for name in material.ALGORITHMS]})
    policies.write_text(POLICIES.replace("JWKS", jwks), encoding="utf-8")
    every = tokens()
    leaks: set[str] = set()
    answers = 0
    flags = ("--transport", transport, "--posture", posture, "--namespace", "apps", "--log-level", "debug")
    with Serve(tmp_path, policies, *flags, "--decision-log", "stdout") as serve:
        with grpc.insecure_channel(str(serve.address)) as channel:
            call: Callable[..., bytes] = channel.unary_unary(METHOD)
            for token in every:
                pieces = secrets(token)
                for payload in checks(token):
                    answer = call(payload, timeout=10.0, wait_for_ready=True)
                    answers += 1
                    leaks |= {gram for gram in grams(answer.decode("latin-1")) if gram in pieces}
        log, output = serve.child.log, serve.child.output
    assert len(output.read_bytes().splitlines()) == answers  # a record of each decision
    said = log.read_text() + output.read_text()

    assert answers == len(every) * len(PLACES)
    assert leaks == set()
    assert "DEBUG" in said  # the level is what it should be, and the log is the one that we read
    assert {gram for token in every for gram in secrets(token)} & grams(said) == set()


@pytest.fixture
def explain(capsys: pytest.CaptureFixture[str]) -> Explain:
    return Explain(capsys)


@pytest.mark.parametrize("form", ["json", "text"])
def test_no_explanation_has_a_piece_of_a_token(explain: Explain, tmp_path: Path, form: str) -> None:
    policies = tmp_path / "policies.yaml"
    jwks = json.dumps({"keys": [material.jwk(name) for name in material.ALGORITHMS]})
    policies.write_text(POLICIES.replace("JWKS", jwks), encoding="utf-8")
    asked = (
        "--policies",
        str(policies),
        "--as",
        "spiffe://cluster.local/ns/apps/sa/sleep",
        "--to",
        "apps/x",
        "-o",
        form,
    )
    explained = 0
    # What a rule looks at in any header is shown, but for what looks like a token, however broken after its header.
    like_tokens = [token for token in tokens() if re.fullmatch(r"e[wy][A-Za-z0-9_+=-]+\.\S*", token)]
    assert len(like_tokens) > 0.9 * len(tokens())
    for token in like_tokens[:: max(1, len(like_tokens) // 30)]:
        pieces = secrets(token)
        for place in PLACES:
            path, lines = place(token)
            if not all(value.isprintable() for _, value in lines) or not path.isprintable():
                continue
            headers = [word for name, value in lines for word in ("--header", f"{name}: {value}")]
            result = explain(*asked, "GET", path, *headers)
            explained += result.code in {0, 1}
            assert grams(result.out + result.err) & pieces == set(), (path[:40], [name for name, _ in lines])
    assert explained > 20
