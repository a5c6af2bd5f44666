"""What is measured: requests recorded from the demo mesh's Envoy 1.40, its policies, and tokens minted here.

The recordings carry no token: it is put in when they are read.
"""

import base64
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from countersign.core.jwt_rule import RemoteKeys
from countersign.mesh.issuer import Issuer
from countersign.policy.parse import parse
from countersign.policy.scope import PolicySet
from countersign.snapshot import Mesh, Snapshot
from countersign.tokens.keys import KeySet
from countersign.wire import auth_pb2 as pb
from google.protobuf import json_format

from bench.material import joined

ROOT: Final = Path(__file__).resolve().parents[1]
ISSUER: Final = "https://issuer.example"

# What a browser adds, roughly.
_BROWSER: Final = {
    "accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    "accept-encoding": "gzip, deflate, br, zstd",
    "accept-language": "en-GB,en;q=0.7,de;q=0.3",
    "cache-control": "no-cache",
    "cookie": "session=" + "c" * 400 + "; theme=dark; consent=1",
    "referer": "https://shop.example/catalogue?page=2",
    "sec-fetch-dest": "document",
    "sec-fetch-mode": "navigate",
    "sec-fetch-site": "same-origin",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "user-agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One request, serialized, and the reason that the answer to it must give."""

    payload: bytes
    reason: str

    def others(self, count: int, start: int = 0) -> list[bytes]:
        """As many other questions with the same answer: each has a query that no rule looks at."""
        message = pb.CheckRequest.FromString(self.payload)
        path, made = message.attributes.request.http.path, []
        for number in range(start, start + count):
            message.attributes.request.http.path = f"{path}?n={number}"
            made.append(message.SerializeToString())
        return made


def snapshot_and_cases() -> tuple[Snapshot, dict[str, Case]]:
    """The demo's policies and keys, and the requests by name."""
    issuer = Issuer(ISSUER)
    texts = {str(path.relative_to(ROOT)): path.read_text() for path in (ROOT / "envoy" / "policies").glob("*.yaml")}
    resources = parse(texts, None, lambda _: "").resources
    keys = KeySet.parse(json.dumps(issuer.jwks()))
    snapshot = Snapshot(
        mesh=Mesh(namespace="apps"),
        policies=PolicySet(resources, "istio-system", 1),
        keys={
            rule.keys: keys
            for resource in resources.request_authentications
            for rule in resource.rules
            if isinstance(rule.keys, RemoteKeys)
        },
    )
    claims = {"iss": ISSUER, "sub": "alice", "aud": "httpbin", "groups": ["staff"], "exp": int(time.time()) + 86400}
    token = f"Bearer {issuer.sign(claims, algorithm='ES256')}"
    browser = {"authorization": token, **_BROWSER}
    allowed = "allow-rule-matched"
    return snapshot, {
        "workload": Case(payload=_payload("workload"), reason=allowed),
        "denied": Case(payload=_payload("workload", method="DELETE"), reason="no-allow-rule-matched"),
        "user": Case(payload=_payload("user", authorization=token), reason=allowed),
        "browser": Case(payload=_payload("user", **browser), reason=allowed),
        "browser, headers joined": Case(payload=joined(_payload("user", **browser)), reason=allowed),
    }


def _payload(recording: str, method: str = "GET", **headers: str) -> bytes:
    document: dict[str, Any] = json.loads((ROOT / "bench" / "recorded" / f"{recording}.json").read_text())
    http = document["attributes"]["request"]["http"]
    http["method"] = method
    replaced = {":method": method, **{name.replace("_", "-"): value for name, value in headers.items()}}
    lines = [line for line in http["header_map"]["headers"] if line["key"] not in replaced]
    lines += [{"key": key, "raw_value": base64.b64encode(value.encode()).decode()} for key, value in replaced.items()]
    http["header_map"]["headers"] = lines
    return json_format.ParseDict(document, pb.CheckRequest()).SerializeToString()
