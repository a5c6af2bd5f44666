"""The judge's translator against Istio's own: it must write what Istio writes, or its verdicts are worth nothing."""

from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

import yaml

from tests.envoy.judge.translate import Target, filters
from tests.envoy.judge.trust import Mesh, applying
from tests.support import vectors

MANIFEST = "istio/golden-manifest.yaml"
LABELS = {"app": "httpbin", "version": "v1"}  # the workload of Istio's own test
NAMESPACE = "foo"
CASES = 29  # of them one that wants no filter at all
RBAC_FILTERS = 31  # the manifest's other 4 files are Istio's own ext_authz filters, which carry no policy


def cases() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each golden case with its section, such as ``http`` or ``tcp``."""
    for section, entries in vectors.yaml_file(MANIFEST).items():
        if section != "note":
            for entry in entries:
                yield section, entry


def documents(path: str) -> list[Any]:
    """The documents of a golden file; some end with an empty one."""
    directory, name = PurePath(path).parent.name, PurePath(path).name
    return [each for each in yaml.safe_load_all(vectors.text(f"istio/golden/{directory}/{name}")) if each]


def translated(entry: dict[str, Any]) -> list[Any]:
    mesh = Mesh(trust_domain=entry.get("trustDomain", ""), aliases=tuple(entry.get("trustDomainAliases", ())))
    tcp = "/tcp/" in entry["input"]
    providers = {} if "bad" in entry["name"] else {"default": "only-http" not in entry["name"]}
    policies = applying(documents(entry["input"]), "AuthorizationPolicy", NAMESPACE, LABELS, mesh)
    return filters(policies, Target(mesh=mesh, tcp=tcp, providers=providers))


def wanted(entry: dict[str, Any]) -> list[Any]:
    outputs = [document for path in entry["outputs"] for document in documents(path)]
    return [each for each in outputs if each["name"].endswith(".rbac")]


def test_every_golden_of_istio_comes_out_of_the_translator() -> None:
    reproduced = {}
    for section, entry in cases():
        reproduced[f"{section}/{entry['name']}"] = translated(entry) == wanted(entry)

    assert [name for name, equal in reproduced.items() if not equal] == []
    assert len(reproduced) == CASES
    assert sum(len(wanted(entry)) for _, entry in cases()) == RBAC_FILTERS
