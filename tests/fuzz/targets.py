"""What each parser must hold for any octets: it returns or raises its own error, and what it returns is right.

A target takes octets and raises AssertionError, or what no parser may raise, when it has found something.
"""

import base64
import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from countersign.core.decision import Reason
from countersign.core.identity import PeerError, PeerRules, PeerSource, authenticate_peer
from countersign.core.jwt_rule import InlineKeys
from countersign.core.posture import Posture
from countersign.core.spiffe import SpiffeId, SpiffeIdError
from countersign.core.xfcc import MAX_ELEMENTS, ClientCert, XfccError
from countersign.core.xfcc import parse as parse_xfcc
from countersign.edge.check import Checker
from countersign.snapshot import Mesh, Snapshot
from countersign.tokens.jose import ALGORITHMS, TokenError
from countersign.tokens.jose import parse as parse_token
from countersign.tokens.keys import KeySet, KeySetError
from countersign.tokens.verify import LEEWAY, verify
from countersign.wire import auth_pb2 as pb
from jwt.algorithms import get_default_algorithms

from tests.edge.serving import snapshot
from tests.support.envoy_data_plane import auth
from tests.support.requests import XFCC, facts
from tests.tokens import material

ISSUER: Final = material.ISSUER
SLEEP: Final = "spiffe://cluster.local/ns/apps/sa/sleep"
NOW: Final = int(time.time())
CLAIMS: Final[Mapping[str, Any]] = {**material.CLAIMS, "exp": NOW + 7 * 86_400, "iat": NOW}
KEYS: Final = material.key_set()
GOOD: Final = tuple(material.sign(CLAIMS, algorithm=name) for name in ("RS256", "PS256", "ES256", "ES512", "EdDSA"))

_RULE: Final = material.rule(audiences=(material.AUDIENCE,))
_SPIFFE: Final = re.compile(r"spiffe://[a-z0-9._-]{1,255}(/[A-Za-z0-9._-]+)*")
_HOP: Final = f"Hash=ab;URI={SLEEP}"
_QUOTED: Final = re.compile(r'(["\\])')
_ESCAPED: Final = r"\\\1"
_SIGNED: Final = b"\x01"  # the rest is a header and a payload, to be signed by the issuer
_ENCODED: Final = b"\x02"  # the rest is a header, a payload and a signature, to be encoded only


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One parser. ``words`` are what its language is made of; ``longest`` input in octets."""

    run: Callable[[bytes], None]
    words: Iterable[str]
    longest: int = 4096


def spiffe(data: bytes) -> None:
    """A SPIFFE ID is read exactly where the specification's grammar says, and is written as it was read."""
    text = _text(data)
    valid = (
        _SPIFFE.fullmatch(text) is not None
        and len(text) <= 2048
        and not {".", ".."} & set(text.removeprefix("spiffe://").split("/")[1:])
    )
    try:
        found = SpiffeId.parse(text)
    except SpiffeIdError:
        assert not valid, text
        return
    assert valid, text
    assert str(found) == text


def xfcc(data: bytes) -> None:
    """Elements read back as themselves, and what a client writes to the left never becomes the peer."""
    text = _text(data)
    try:
        elements = parse_xfcc(text)
    except XfccError:
        elements = ()
    else:
        assert len(elements) <= MAX_ELEMENTS
        assert bool(elements) == bool(text)
        assert parse_xfcc(",".join(map(_written, elements))) == elements
    for line, principal, source in (
        (f"{text},{_HOP}", "", PeerSource.XFCC),
        (text, SLEEP, PeerSource.CROSS_CHECK),
    ):
        try:
            peer = authenticate_peer(facts((XFCC, line), principal=principal), PeerRules(source=source))
        except PeerError:
            continue
        assert str(peer.id) == SLEEP, line


def _written(element: ClientCert) -> str:
    pairs = [("Hash", element.hash), ("Cert", element.cert), ("Chain", element.chain)]
    pairs += [("Subject", element.subject), ("Issuer", element.issuer)]
    pairs += [("By", value) for value in element.by] + [("DNS", value) for value in element.dns]
    pairs += [("URI", value) for value in element.uris or ()]
    return ";".join(f'{key}="{_QUOTED.sub(_ESCAPED, value)}"' for key, value in pairs)


def jwt(data: bytes) -> None:
    """No token verifies that the issuer has not signed, and a signed one only if it says the right things."""
    signed = data[:1] == _SIGNED
    token = _signed(data[1:]) if signed else _encoded(data[1:]) if data[:1] == _ENCODED else _text(data)
    try:
        parsed = parse_token(token)
    except TokenError:
        return
    head, body, signature = token.split(".")
    assert parsed.head.members == json.loads(_octets(head))
    assert parsed.payload == json.loads(_octets(body))
    assert parsed.signature == _octets(signature)
    assert material.encode(parsed.signature) == signature
    accepted = {posture for posture in Posture if _accepts(parsed, posture)}
    assert not accepted or signed or token in GOOD, token
    assert Posture.ISTIO in accepted or not accepted, token
    if accepted:
        assert parsed.head.members["alg"] in ALGORITHMS
        assert parsed.payload["iss"] == ISSUER
        expires = int(parsed.payload.get("exp", 0))
        assert expires >= NOW - LEEWAY or expires == 0
    if Posture.STRICT in accepted:
        assert parsed.payload["exp"] >= NOW - LEEWAY
        assert "crit" not in parsed.head.members


def _accepts(parsed: Any, posture: Posture) -> bool:
    try:
        verify(parsed, _RULE, KEYS, NOW, posture)
    except TokenError:
        return False
    return True


def _signed(data: bytes) -> str:
    header, _, payload = data.partition(b"\n")
    return material.sign(payload, algorithm="EdDSA", header=header)


def _encoded(data: bytes) -> str:
    return ".".join(material.encode(part) for part in data.split(b"\n"))


def _octets(segment: str) -> bytes:
    return base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))


def jwks(data: bytes) -> None:
    """A key that is used has algorithms that fit it, and is the key that the set names."""
    text = _text(data)
    try:
        found = KeySet.parse(text)
    except KeySetError:
        return
    members = json.loads(text)["keys"]
    assert len(found.keys) + len(found.rejected) == len(members)
    for key in found.keys:
        assert key.algorithms
        assert key.algorithms <= ALGORITHMS
        algorithm = min(key.algorithms)
        again = get_default_algorithms()[algorithm].to_jwk(key.public, as_dict=True)
        again.pop("key_ops", None)
        (same,) = KeySet.parse(json.dumps({"keys": [again]})).keys
        assert same.thumbprint == key.thumbprint
        assert getattr(key.public, "key_size", 2048) in {256, 384, 521, *range(2048, 16385)}


POLICIES: Final = """\
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: users, namespace: istio-system}
spec:
  jwtRules:
  - issuer: ISSUER
    jwks: 'JWKS'
    audiences: [svc]
    outputClaimToHeaders: [{header: x-user, claim: sub}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: readers, namespace: istio-system}
spec:
  rules:
  - from: [{source: {principals: [cluster.local/ns/apps/sa/sleep]}}]
    to: [{operation: {methods: [GET], paths: [/headers, /status/*]}}]
  - from: [{source: {requestPrincipals: [ISSUER/alice]}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: nobody, namespace: istio-system}
spec:
  action: DENY
  rules: [{to: [{operation: {paths: [/status/secret]}}]}, {when: [{key: 'request.headers[x-user]', values: [root]}]}]
"""


def _snapshots() -> Mapping[Posture, Snapshot]:
    keys = json.dumps({"keys": [material.jwk("EdDSA")]})
    policies = POLICIES.replace("ISSUER", ISSUER).replace("JWKS", keys)
    source = InlineKeys(keys)
    return {
        posture: snapshot(policies, {source: KeySet.parse(keys)}, Mesh(namespace="apps", posture=posture))
        for posture in Posture
    }


_SNAPSHOTS: Final = _snapshots()


def check(data: bytes) -> None:
    """An answer is explicit; an allow is one in posture `istio` too, and an independent reader finds its reason."""
    allowed = {posture for posture in Posture if _is_allowed(data, posture)}
    assert Posture.ISTIO in allowed or not allowed
    if not allowed:
        return
    message = pb.CheckRequest.FromString(data)
    message.DiscardUnknownFields()  # the other reader stumbles over a known number with another wire type
    attributes: Any = auth.CheckRequest.parse(message.SerializeToString()).attributes
    http, source = attributes.request.http, attributes.source
    lines = [line.raw_value or line.value.encode() for line in http.header_map.headers] if http.header_map else []
    lines += [value.encode() for value in http.headers.values()]
    path = http.path.partition("?")[0]
    of_readers = re.fullmatch(r"/headers|/status/.*", path, re.DOTALL)
    by_peer = source.principal == SLEEP and http.method == "GET" and of_readers
    by_user = any(GOOD[-1].encode() in place for place in (*lines, http.path.encode()))
    assert source.principal.startswith("spiffe://cluster.local/")
    assert path != "/status/secret"
    assert by_peer or by_user


def _fail(error: Exception) -> NoReturn:
    raise error


def _is_allowed(data: bytes, posture: Posture) -> bool:
    checker = Checker(lambda: _SNAPSHOTS[posture], lambda _: None, _fail)
    answer = checker.answer(data, None)
    assert isinstance(answer, bytes), "the answer waits, but nothing here is fetched"
    response = pb.CheckResponse.FromString(answer)
    assert response.HasField("status")
    if response.dynamic_metadata.fields["reason"].string_value == Reason.DEADLINE_PASSED:
        return _is_allowed(data, posture)  # the machine was busy: that says nothing about these octets
    allowed = response.status.code == 0
    assert response.WhichOneof("http_response") == ("ok_response" if allowed else "denied_response")
    assert allowed or 400 <= response.denied_response.status.code < 600
    return allowed


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")  # as headers are read


TARGETS: Final[Mapping[str, Target]] = {
    "check": Target(run=check, words=(SLEEP, "/status/", "x-user", ":path", "authorization", "Bearer ", "GET")),
    "xfcc": Target(run=xfcc, words=("By=", "Hash=", "URI=", "DNS=", "Subject=", '"', "\\", ",", ";", "[{", SLEEP)),
    "spiffe": Target(run=spiffe, words=("spiffe://", "/ns/", "/sa/", "..", "/."), longest=2200),
    "jwt": Target(run=jwt, words=('"alg"', '"EdDSA"', '"crit"', '"iss"', '"exp"', '"aud"', '"kid"', "1e9", "\n", "."),
                  longest=8400),
    "jwks": Target(run=jwks, words=('"keys"', '"kty"', '"crv"', '"x"', '"n"', '"e"', '"alg"', '"use"', '"kid"')),
}  # fmt: skip
