"""What every arm of the benchmark is given: policies, tokens and the CheckRequests that the real Envoy sends."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import yaml
from countersign.mesh.issuer import Issuer
from countersign.wire import auth_pb2

ISSUER: Final = "https://issuer.bench.example"
AUDIENCE: Final = "bench"
NAMESPACE: Final = "apps"
CALLER: Final = "cluster.local/ns/apps/sa/sleep"
CHECK: Final = "/envoy.service.auth.v3.Authorization/Check"
ALGORITHMS: Final = ("RS256", "ES256", "EdDSA")

_LIFETIME: Final = 3600  # seconds
_SMALL: Final = 1_000  # rules, up to which each is a policy of its own
_RULES_A_POLICY: Final = 100


@dataclass(frozen=True, slots=True)
class Rule:
    """One ALLOW rule, the same for every arm: who, with whose token, may do what."""

    principal: str
    path: str
    group: str


def rules(count: int) -> list[Rule]:
    """``count`` rules, of which only the last lets the benchmark's request pass."""
    others = [Rule(f"cluster.local/ns/apps/sa/client-{n}", f"/api/{n}/*", f"team-{n}") for n in range(count - 1)]
    return [*others, Rule(CALLER, f"/api/{count - 1}/*", "team-payments")]


def request_path(count: int) -> str:
    """The path that the last of ``count`` rules lets pass."""
    return f"/api/{count - 1}/orders?limit=20"


def istio(count: int, issuer: Issuer, jwks_uri: str = "") -> str:
    """The rules as Istio's YAML: up to a thousand policies of one rule, then policies of a hundred."""
    per_policy = 1 if count <= _SMALL else _RULES_A_POLICY
    keys = {"jwksUri": jwks_uri} if jwks_uri else {"jwks": json.dumps(issuer.jwks())}
    everything = rules(count)
    documents: list[Mapping[str, Any]] = [
        _resource("PeerAuthentication", "strict", {"mtls": {"mode": "STRICT"}}),
        _resource(
            "RequestAuthentication",
            "tokens",
            {
                "jwtRules": [
                    {
                        "issuer": ISSUER,
                        "audiences": [AUDIENCE],
                        **keys,
                        "forwardOriginalToken": True,
                    }
                ]
            },
        ),
    ]
    for number in range(0, count, per_policy):
        spec = {"action": "ALLOW", "rules": [_istio_rule(rule) for rule in everything[number : number + per_policy]]}
        documents.append(_resource("AuthorizationPolicy", f"allow-{number}", spec))
    return yaml.safe_dump_all(documents, sort_keys=False)


def _istio_rule(rule: Rule) -> Mapping[str, Any]:
    return {
        "from": [{"source": {"principals": [rule.principal], "requestPrincipals": [f"{ISSUER}/*"]}}],
        "to": [{"operation": {"methods": ["GET"], "paths": [rule.path]}}],
        "when": [{"key": "request.auth.claims[groups]", "values": [rule.group]}],
    }


def _resource(kind: str, name: str, spec: Mapping[str, Any]) -> Mapping[str, Any]:
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "security.istio.io/v1", "kind": kind, "metadata": metadata, "spec": spec}


def tokens(issuer: Issuer, algorithm: str, count: int, *, group: str = "team-payments", forged: int = 0) -> list[str]:
    """``count`` different tokens; one in ``forged`` (0: none) has another key's signature."""
    minted = []
    for number in range(count):
        sign = issuer.forge if forged and number % forged else issuer.sign
        minted.append(sign(claims(number, group), algorithm=algorithm))
    return minted


def claims(number: int, group: str = "team-payments") -> dict[str, Any]:
    """What the ``number``-th user's token says, for an hour from now."""
    now = int(time.time())
    return {
        "sub": f"user-{number}",
        "aud": AUDIENCE,
        "iat": now,
        "exp": now + _LIFETIME,
        "jti": f"{now}-{number}",
        "groups": ["staff", "on-call", group],
        "scope": "orders:read orders:write",
    }


def with_tokens(recorded: bytes, path: str, minted: Sequence[str]) -> list[bytes]:
    """The recorded CheckRequest once for each token, asking for ``path``."""
    request = auth_pb2.CheckRequest.FromString(recorded)
    http = request.attributes.request.http
    http.path = path
    lines = {header.key: header for header in http.header_map.headers}  # as `encode_raw_headers` sends them
    lines[":path"].raw_value = path.encode()
    messages = []
    for token in minted:
        lines["authorization"].raw_value = f"Bearer {token}".encode()
        messages.append(request.SerializeToString())
    return messages


def with_paths(recorded: bytes, path: str, token: str, count: int) -> list[bytes]:
    """The recorded CheckRequest with a token, so many times, each with a query of its own."""
    return [with_tokens(recorded, f"{path}&page={number}", [token])[0] for number in range(count)]


def joined(message: bytes) -> bytes:
    """The same CheckRequest from an Envoy without `encode_raw_headers`: repeated headers are joined."""
    request = auth_pb2.CheckRequest.FromString(message)
    http = request.attributes.request.http
    for line in http.header_map.headers:
        before = http.headers.get(line.key)
        value = line.raw_value.decode()
        http.headers[line.key] = value if before is None else f"{before},{value}"
    http.ClearField("header_map")
    return request.SerializeToString()
