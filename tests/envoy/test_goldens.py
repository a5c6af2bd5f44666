"""The judge's translator against Istio's own: it must write what Istio writes, or its verdicts are worth nothing."""

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any, Final

import yaml

from tests.envoy.judge import peers
from tests.envoy.judge.rules import Target
from tests.envoy.judge.translate import filters
from tests.envoy.judge.trust import Mesh, applying
from tests.support import vectors

MANIFEST: Final = "istio/golden-manifest.yaml"
GOLDEN: Final = "istio/golden"
LABELS: Final = {"app": "httpbin", "version": "v1"}  # the workload of Istio's own test
NAMESPACE: Final = "foo"
MERGES: Final = 14
AGES: Final = {"t-1s": "2026-01-01T00:00:00Z", "t0": "2026-01-01T00:00:01Z"}
CASES: Final = 30  # of them one that wants no filter at all

# What the manifest does not name: the pair that Istio's test had until it gave up proxies before 1.11.
NOT_IN_MANIFEST: Final = {
    "http": [
        {
            "name": "allow-host-before-111",
            "input": "http/allow-host-before-111-in.yaml",
            "outputs": ["http/allow-host-before-111-out.yaml"],
        }
    ],
}
PROXIES: Final = {"allow-host-before-111": (1, 10)}

# The mesh configurations of Istio's builder_test.go, by the cases that it uses them for; others have no provider.
GRPC: Final = """
- name: default
  envoyExtAuthzGrpc:
    service: foo/my-custom-ext-authz.foo.svc.cluster.local
    port: 9000
    timeout: 0.002s
    failOpen: true
    statusOnError: "403"
    includeRequestBodyInCheck: {maxRequestBytes: 4096, allowPartialMessage: true}
"""
GRPC_NO_NAMESPACE: Final = """
- name: default
  envoyExtAuthzGrpc:
    service: my-custom-ext-authz.foo.svc.cluster.local
    port: 9000
    failOpen: true
    statusOnError: "403"
"""
HTTP: Final = """
- name: default
  envoyExtAuthzHttp:
    service: foo/my-custom-ext-authz.foo.svc.cluster.local
    port: 9000
    timeout: 10s
    failOpen: true
    statusOnError: "403"
    pathPrefix: /check
    includeRequestHeadersInCheck: [x-custom-id, x-prefix-*, "*-suffix"]
    includeAdditionalHeadersInCheck: {x-header-2: value-2, x-header-1: value-1}
    includeRequestBodyInCheck: {maxRequestBytes: 2048, allowPartialMessage: true, packAsBytes: true}
    headersToUpstreamOnAllow: [Authorization, x-prefix-*, "*-suffix"]
    headersToDownstreamOnAllow: [Set-cookie, x-prefix-*, "*-suffix"]
    headersToDownstreamOnDeny: [Set-cookie, x-prefix-*, "*-suffix"]
"""
INVALID: Final = """
- name: default
  envoyExtAuthzGrpc:
    service: foo/my-custom-ext-authz
    port: 999999
    timeout: 0.002s
    failOpen: true
    statusOnError: "999"
"""
PROVIDERS: Final[Mapping[str, str]] = {
    "http_custom/custom-grpc-provider-no-namespace": GRPC_NO_NAMESPACE,
    "http_custom/custom-grpc-provider": GRPC,
    "http_custom/custom-http-provider": HTTP,
    "http_custom/custom-bad-multiple-providers": GRPC,
    "http_custom/custom-bad-invalid-config": INVALID,
    "tcp/custom-both-http-tcp": GRPC,
    "tcp/custom-only-http": HTTP,
}


def cases() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each golden case by its section (such as ``http`` or ``tcp``) and name."""
    for sections in (vectors.yaml_file(MANIFEST), NOT_IN_MANIFEST):
        for section, entries in sections.items():
            if section != "note":
                yield from ((f"{section}/{entry['name']}", entry) for entry in entries)


def golden(path: str) -> str:
    """A file of the manifest, by its directory and name."""
    return "/".join(PurePath(path).parts[-2:])


def documents(path: str) -> list[Any]:
    """The documents of a golden file; some end with an empty one."""
    return [each for each in yaml.safe_load_all(vectors.text(f"{GOLDEN}/{golden(path)}")) if each]


def translated(name: str, entry: dict[str, Any]) -> list[Any]:
    mesh = Mesh(trust_domain=entry.get("trustDomain", ""), aliases=tuple(entry.get("trustDomainAliases", ())))
    providers = {each["name"]: each for each in yaml.safe_load(PROVIDERS.get(name, "[]"))}
    target = Target(mesh=mesh, tcp=name.startswith("tcp/"), providers=providers)
    if entry["name"] in PROXIES:
        target = Target(mesh=mesh, proxy=PROXIES[entry["name"]])
    return filters(applying(documents(entry["input"]), "AuthorizationPolicy", NAMESPACE, LABELS, mesh), target)


def test_every_golden_of_istio_comes_out_of_the_translator() -> None:
    reproduced = {}
    for name, entry in cases():
        wanted = [document for path in entry["outputs"] for document in documents(path)]
        reproduced[name] = translated(name, entry) == wanted

    assert [name for name, equal in reproduced.items() if not equal] == []
    assert len(reproduced) == CASES


def test_every_golden_file_is_compared() -> None:
    compared = {golden(path) for _, entry in cases() for path in (entry["input"], *entry["outputs"])}

    assert sorted(compared) == sorted(golden(str(file)) for file in files())


def test_the_published_merges_come_out_of_the_judge() -> None:
    """No filter of Envoy's says which modes a workload's ports have: the judge composes them, and must do as Istio."""
    mesh, labels = Mesh(root_namespace="root-namespace"), {"app": "foo", "stage": "prod"}
    compared = 0
    for case in vectors.yaml_file("istio/unit-cases.yaml")["peer_authentication_merge"]:
        assert case["root_namespace"] == mesh.root_namespace
        policies = [_aged(policy) for policy in case["policies_already_selected"]]
        found = peers.compose(policies, "my-ns", labels, mesh)
        assert found.mode == case["want"]["mode"], case["name"]
        assert dict(found.ports) == case["want"].get("perPort", {}), case["name"]
        compared += 1
    assert compared == MERGES


def _aged(policy: dict[str, Any]) -> dict[str, Any]:
    """The table says how old a policy is: ``t-1s`` is older than ``t0``."""
    created = policy["metadata"].get("creationTimestamp")
    stamp = {"creationTimestamp": AGES[created]} if created else {}
    return {**policy, "metadata": {**policy["metadata"], **stamp}}


def files() -> list[Path]:
    """Every golden file there is; a section that is empty would compare nothing."""
    found = [vectors.locate(f"{GOLDEN}/{directory}") for directory in ("http", "tcp")]
    assert all(any(directory.iterdir()) for directory in found)
    return [file for directory in found for file in directory.iterdir()]
