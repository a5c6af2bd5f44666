"""Documents with a mistake, or with something that only looks like one: what people write, and what attackers would."""

import copy
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any, Final

from tests.envoy.judge.matchers import Json

Path = tuple[str | int, ...]

# Texts in the place of others: each is odd to some reader of some field.
TEXTS: Final[Sequence[str]] = (
    "", "*", "**", "a*b", "*a*", "{*}", "{**}", "/a/{*}/b", "/a/{**}/b/{*}", "/a{*}", "{a}", "/{**}/{**}", "//",
    "/a//{*}",
    "0", "80", "00080", "65535", "65536", "-1", "+80", "8_0", "1e3", "0x50", "80.0", " 80",
    "10.0.0.1", "10.0.0.1/8", "10.0.0.1/33", "10.0.0.0/08", "010.0.0.1", "10.0.0", "::1", "::ffff:10.0.0.1",
    "fe80::1%eth0",
    "::/0", "::ffff:10.0.0.0/104", "10.0.0.0/255.0.0.0", "2001:db8::/129", "10.0.0.1/", "/8",
    "a/b", "a/b/c", "/a", "a/", "ns/sa*", "a.b", "x" * 321, "x" * 64, "spiffe://cluster.local/ns/a/sa/b",
    "cluster.local/ns/a/sa/b", "*.local", "clus*ter", "caf\xe9", "a b", "a\nb", "ALLOW", "allow", "STRICT", "strict",
    "MUTUAL",
    "5s", "0s", "-5s", "5m", "1h30m", "250ms", "0.0005s", "1.5s", "1.0005s", "5", "100us", "1e3s", ".5s", "5.s",
    "1d", "1000000000000s",
    "http://a", "https://a/b", "https://", "ftp://a", "https://a:b", "https://a:99999", "https://a b",
    "https://[::1]/k", "https://a:", "a",
    "https://a/%zz", "https://a/\u00e9", "HTTPS://a", "https://user@a/k", "https://a/k#f", "https://-a_b/k",
    "https://a:0/",
    "X-A", "x a", "x:a", "x\u00e9", ":path", "x-a-", "true", "t", "yes", "2026-01-01T00:00:00Z",
    '{"keys": []}', "{}", "[]", '{"keys": {}}', '{"keys": [{}]}', '{"keys": [{"kty": "oct"}]}', '{"kty":"RSA"}',
    '{"keys":[1]}', '"a"', "null",
    "request.headers", "request.headers[]", "request.headers[a]", "request.headers[a", "request.headersX[a]",
    "request.headers[a]b]",
    "request.headers[[a]]", "request.auth.claims", "request.auth.claims[a][b]", "request.auth.claims[a]x[b]",
    "request.auth.claims[]",
    "request.auth.claimsX[a]", "request.auth.claims[a][]", "request.auth.claims[a]]", "request.auth.claims.a",
    "request.auth",
    "source.ip", "source.namespace", "source.principal", "source.user", "source.trustDomain",
    "source.serviceAccount", "destination.labels[a]",
    "destination.user", "destination.port", "destination.ip", "connection.sni", "experimental.envoy.filters.a[b]",
    "experimental.envoy.filters.",
    "experimental.envoy.filters.a", "experimental.envoy.filters.a[", "experimental.envoy.filters.[b]",
    "experimental.envoy.filters.a[b][c]",
    "experimental.envoy.filtersx[a]", "source.ip[a]", "request.auth.principal", "request.auth.principal[a]",
    "remote.ip",
)  # fmt: skip
_SMALL: Final = 100  # characters of what may be repeated beyond every limit
_VALUES: Final[Sequence[Any]] = (
    None,
    [],
    {},
    "",
    "x",
    5,
    0,
    -1,
    1.5,
    True,
    False,
    [None],
    [{}],
    [""],
    ["x"],
    {"a": "b"},
    [5],
)
_FIELDS: Final[Sequence[str]] = (
    "selector", "targetRef", "targetRefs", "action", "rules", "provider", "from", "to", "when", "source", "operation",
    "principals", "notPrincipals", "requestPrincipals", "namespaces", "notNamespaces", "ipBlocks", "remoteIpBlocks",
    "notRemoteIpBlocks", "serviceAccounts", "notServiceAccounts", "trustDomains", "notTrustDomains", "hosts",
    "notHosts", "ports",
    "notPorts", "methods", "paths", "notPaths", "key", "values", "notValues", "mtls", "portLevelMtls", "mode",
    "jwtRules", "issuer",
    "audiences", "jwks", "jwksUri", "jwks_uri", "fromHeaders", "fromParams", "fromCookies", "outputPayloadToHeader",
    "outputClaimToHeaders", "forwardOriginalToken", "timeout", "spaceDelimitedClaims", "matchLabels", "name",
    "prefix", "header",
    "claim", "group", "kind", "namespace", "unknown", "Principals", "not_principals", "request_principals",
)  # fmt: skip
_TARGETS: Final[Sequence[Json]] = (
    {"kind": "Gateway", "group": "gateway.networking.k8s.io", "name": "g"},
    {"kind": "Service", "name": "s"},
    {"kind": "Service", "group": "core", "name": "s"},
    {"kind": "Service", "group": "", "name": "s", "namespace": "other"},
    {"kind": "ServiceEntry", "group": "networking.istio.io", "name": "s"},
    {"kind": "GatewayClass", "group": "gateway.networking.k8s.io", "name": "istio-waypoint"},
    {"kind": "Pod", "name": "p"},
    {"kind": "Service", "group": "gateway.networking.k8s.io", "name": "s"},
    {"kind": "Gateway", "group": "gateway.networking.k8s.io", "name": ""},
    {"name": "x"},
)
_ANNOTATIONS: Final[Sequence[Json]] = (
    {"istio.io/dry-run": "true"}, {"istio.io/dry-run": "True"}, {"istio.io/dry-run": "yes"}, {"istio.io/dry-run": ""},
    {"internal.istio.io/parents": "a"}, {"internal.istio.io/webhook-always-reject": ""}, {"a": "b"},
    {"internal.istio.io/parent-namespace": "a"},
)  # fmt: skip


def mutated(rng: Random, document: Json) -> Json:
    """The document with one to three changes."""
    found: Json = copy.deepcopy(document)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        rng.choice(_CHANGES)(rng, found)
    return found


def _places(value: Any, path: Path = ()) -> Iterator[Path]:
    yield path
    if isinstance(value, dict):
        for name, member in value.items():
            yield from _places(member, (*path, name))
    elif isinstance(value, list):
        for index, element in enumerate(value):
            yield from _places(element, (*path, index))


def _at(value: Any, path: Path) -> Any:
    for step in path:
        value = value[step]
    return value


def _somewhere(rng: Random, document: Json, wanted: Callable[[Any], bool]) -> Path | None:
    """A place in the spec whose value is as wanted."""
    spec = document.get("spec")
    places = [("spec", *path) for path in _places(spec) if wanted(_at(spec, path))]
    return rng.choice(places) if places else None


def _set(document: Json, path: Path, value: Any) -> None:
    _at(document, path[:-1])[path[-1]] = copy.deepcopy(value)


def _other_text(rng: Random, document: Json) -> None:
    path = _somewhere(rng, document, lambda value: isinstance(value, str))
    if path is not None:
        _set(document, path, rng.choice(TEXTS))


def _other_value(rng: Random, document: Json) -> None:
    path = _somewhere(rng, document, lambda _: True)
    if path is not None:
        _set(document, path, rng.choice(_VALUES))


def _without(rng: Random, document: Json) -> None:
    path = _somewhere(rng, document, lambda _: True)
    if path is not None and len(path) > 1:
        del _at(document, path[:-1])[path[-1]]


def _renamed(rng: Random, document: Json) -> None:
    path = _somewhere(rng, document, lambda value: isinstance(value, dict) and bool(value))
    if path is not None:
        members = _at(document, path)
        members[rng.choice(_FIELDS)] = members.pop(rng.choice(list(members)))


def _more(rng: Random, document: Json) -> None:
    path = _somewhere(rng, document, lambda value: isinstance(value, dict))
    if path is not None:
        values = (*_VALUES, ["x"], [rng.choice(TEXTS)], rng.choice(TEXTS))
        _set(document, (*path, rng.choice(_FIELDS)), rng.choice(values))


def _repeated(rng: Random, document: Json) -> None:
    path = _somewhere(rng, document, lambda value: isinstance(value, list) and bool(value))
    if path is not None:
        values = _at(document, path)
        small = len(str(values[0])) < _SMALL
        values += [copy.deepcopy(values[0]) for _ in range(rng.choice((1, 1, 20, 600 if small else 1)))]


def _targets(rng: Random, document: Json) -> None:
    if isinstance(document.get("spec"), dict):
        if rng.random() < 0.7:
            document["spec"].pop("selector", None)
        if rng.random() < 0.3:
            document["spec"]["targetRef"] = dict(rng.choice(_TARGETS))
        else:
            document["spec"]["targetRefs"] = [dict(rng.choice(_TARGETS)) for _ in range(rng.choice((1, 1, 2, 17)))]


def _labels(rng: Random, document: Json) -> None:
    if isinstance(document.get("spec"), dict):
        labels = rng.choice(
            ({}, None, {"a": "*"}, {"": "a"}, {"a*": "b"}, {"a": ""}, {"a": "x" * 64}, {"a/b": "c"}, {"a": 5})
        )
        document["spec"]["selector"] = rng.choice(({"matchLabels": labels}, {"matchLabels": labels}, {}))


def _annotated(rng: Random, document: Json) -> None:
    document["metadata"]["annotations"] = dict(rng.choice(_ANNOTATIONS))


def _other_whole(rng: Random, document: Json) -> None:
    part = rng.choice(("spec", "spec", "apiVersion", "kind", "metadata", "status", "unknown"))
    if part == "metadata":
        document["metadata"].update(
            rng.choice(({"creationTimestamp": None}, {"labels": {"a": "b"}}, {"uid": "x"}, {"generation": 1}))
        )
    elif part in ("apiVersion", "kind"):
        document[part] = rng.choice(
            ("security.istio.io/v1beta2", "security.istio.io/v1", "PeerAuthentication", "RequestAuthentication")
        )
    else:
        document[part] = rng.choice((None, {}, {"conditions": []}))


_CHANGES: Final = (
    _other_text, _other_text, _other_text, _other_text, _other_text, _other_text, _other_value, _other_value,
    _without, _without,
    _renamed, _more, _more, _repeated, _targets, _labels, _annotated, _other_whole,
)  # fmt: skip
