"""Requests, policies and identities for tests, as Envoy and an operator would write them."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from countersign.authorize import authorize
from countersign.core.decision import Decision
from countersign.core.facts import Endpoint, Headers, HttpRequest, RequestFacts
from countersign.core.identity import Identity, VerifiedToken
from countersign.core.posture import Posture
from countersign.core.spiffe import SpiffeId
from countersign.judgement import Judgement
from countersign.policy.parse import parse
from countersign.policy.resources import Resources
from countersign.policy.scope import PolicySet, WorkloadPolicies, scope
from countersign.policy.terms.evidence import Evidence
from countersign.policy.workload import Workload
from countersign.snapshot import Mesh, Snapshot

NOW: Final = 1_800_000_000.0
ROOT_NAMESPACE: Final = "istio-system"
APP: Final = Workload("apps", (("app", "shop"),))
WEB: Final = "spiffe://cluster.local/ns/edge/sa/web"
XFCC: Final = "x-forwarded-client-cert"


def headers(*pairs: tuple[str, str], joined: bool = False) -> Headers:
    """Header lines."""
    return Headers.of(pairs, joined=joined)


def facts(
    *pairs: tuple[str, str],
    method: str = "GET",
    path: str = "/",
    host: str = "shop.example",
    joined: bool = False,
    source: str = "10.1.2.3",
    destination: str = "10.9.8.7",
    port: int = 8080,
    principal: str = WEB,
    **more: Any,
) -> RequestFacts:
    """One request, by default a GET by WEB over mTLS; ``pairs`` are its headers beside the pseudo-headers."""
    pseudo = ((":method", method), (":path", path), (":authority", host), (":scheme", "https"))
    return RequestFacts(
        http=HttpRequest(
            method=method, path=path, host=host, scheme="https", headers=headers(*pseudo, *pairs, joined=joined)
        ),
        source=Endpoint(address=source, port=40000, principal=principal),
        destination=Endpoint(
            address=destination, port=port, principal="spiffe://cluster.local/ns/apps/sa/shop", labels={"app": "shop"}
        ),
        **more,
    )


def token(issuer: str = "https://idp.example", subject: str | None = "alice", **claims: Any) -> VerifiedToken:
    """A token as if it had been verified."""
    everything = {"iss": issuer, "sub": subject, **claims} if subject is not None else {"iss": issuer, **claims}
    return VerifiedToken(claims=everything, issuer=issuer, subject=subject, expires_at=None)


def evidence(
    request: RequestFacts | None = None,
    *,
    peer: str | None = WEB,
    token: VerifiedToken | None = None,
    posture: Posture = Posture.STRICT,
    trust_domains: tuple[str, ...] = ("cluster.local",),
    remote_ip: str = "",
) -> Evidence:
    """What a rule judges."""
    return Evidence(
        facts=facts() if request is None else request,
        identity=Identity(peer=None if peer is None else SpiffeId.parse(peer), token=token),
        posture=posture,
        trust_domains=trust_domains,
        remote_ip=remote_ip,
    )


def load(text: str, namespace: str | None = "apps") -> Resources:
    """The resources of one file."""
    return parse({"policy.yaml": text}, namespace, lambda _: "").resources


def scoped(text: str, workload: Workload = APP) -> WorkloadPolicies:
    """What one file means for a workload."""
    return scope(load(text), workload, ROOT_NAMESPACE)


def authorization(spec: str, name: str = "rule", namespace: str = "apps") -> str:
    """An AuthorizationPolicy with this spec (flow YAML)."""
    return _resource("AuthorizationPolicy", spec, name, namespace)


def peer_authentication(spec: str, name: str = "peers", namespace: str = "apps") -> str:
    """A PeerAuthentication with this spec (flow YAML)."""
    return _resource("PeerAuthentication", spec, name, namespace)


def request_authentication(spec: str, name: str = "users", namespace: str = "apps") -> str:
    """A RequestAuthentication with this spec (flow YAML)."""
    return _resource("RequestAuthentication", spec, name, namespace)


def _resource(kind: str, spec: str, name: str, namespace: str) -> str:
    return (
        f"apiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\n"
        f"spec: {spec}\n---\n"
    )


def snapshot(text: str, mesh: Mesh | None = None, keys: Mapping[Any, Any] | None = None) -> Snapshot:
    """Everything that a check reads, with the policies of one file."""
    return Snapshot(
        mesh=Mesh() if mesh is None else mesh,
        policies=PolicySet(load(text), ROOT_NAMESPACE, 7),
        keys={} if keys is None else keys,
    )


def decide(request: RequestFacts, text: str, mesh: Mesh | None = None) -> Decision:
    """The decision about a request without tokens."""
    return settled(authorize(request, snapshot(text, mesh), NOW, may_wait=False))


def settled(judgement: Judgement) -> Decision:
    """A decision, where nothing may be waited for."""
    assert not judgement.awaits
    return judgement.decision


def names(values: Iterable[object]) -> list[str]:
    """Values as text, for comparison."""
    return [str(value) for value in values]
