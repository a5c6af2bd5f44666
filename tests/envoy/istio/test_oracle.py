"""Istio's own Go code: it makes its own golden files, and our tables and it refuse the same."""

import json
import os
from collections.abc import Iterator
from typing import Any, Final

import pytest
import yaml

from tests.envoy.istio import attachment, translation, validation
from tests.envoy.istio.build import NoGoError, build
from tests.envoy.istio.oracle import Asked, Oracle
from tests.envoy.judge.trust import Mesh
from tests.envoy.test_goldens import LABELS, NAMESPACE, PROVIDERS, cases, documents
from tests.support import vectors

OF_THE_PAST: Final = "http/allow-host-before-111"  # for proxies that Istio has given up
SAMPLES: Final = (
    "authz-invalid",
    "authz-valid",
    "peerauth-invalid",
    "peerauth-valid",
    "reqauth-invalid",
    "reqauth-valid",
)


@pytest.fixture(scope="module")
def oracle() -> Iterator[Oracle]:
    if not os.environ.get("COUNTERSIGN_ORACLE"):
        pytest.skip("Istio's own code takes minutes to build: `make oracle` does so, with Go")
    try:
        program = build()
    except NoGoError as error:
        pytest.skip(str(error))
    with Oracle(program) as found:
        yield found


def unexplained(found: Iterator[tuple[str, str]]) -> list[str]:
    return [difference for _, difference in found if difference]


def test_istio_makes_its_own_golden_files(oracle: Oracle) -> None:
    """Or the program would ask it wrongly."""
    services = [{"hostname": "my-custom-ext-authz.foo.svc.cluster.local", "name": "my-custom-ext-authz"}]
    services[0]["namespace"] = "foo"
    reproduced = {}
    for name, entry in cases():
        mesh = Mesh(
            trust_domain=entry.get("trustDomain", ""),
            aliases=tuple(entry.get("trustDomainAliases", ())),
            root_namespace="istio-system",
        )
        providers = yaml.safe_load(PROVIDERS.get(name, "[]"))
        policies = documents(entry["input"])
        _, (made,) = oracle.make(policies, [Asked(namespace=NAMESPACE, labels=LABELS)], mesh, providers, services)
        wanted = [document for path in entry["outputs"] for document in documents(path)]
        reproduced[name] = (made.tcp if name.startswith("tcp/") else made.http) == wanted

    assert [name for name, equal in reproduced.items() if not equal] == [OF_THE_PAST]


def test_the_translator_makes_what_istio_makes(oracle: Oracle) -> None:
    assert unexplained(translation.compare(oracle, "make test", 300)) == []


def test_policies_are_for_the_workloads_that_istio_picks(oracle: Oracle) -> None:
    assert unexplained(attachment.compare(oracle, "make test", 100)) == []


def test_documents_with_a_mistake_are_refused_as_istio_does(oracle: Oracle) -> None:
    assert unexplained(validation.compare(oracle, "make test", 2000)) == []


def test_the_published_documents_are_refused_as_istio_does(oracle: Oracle) -> None:
    texts = [json.dumps(each, default=str) for each in published()]
    outcomes = [validation.outcome(text, said) for text, said in zip(texts, oracle.verdicts(texts), strict=True)]

    assert [difference for _, difference in outcomes if difference] == []
    assert len({name for name, _ in outcomes}) >= 2


def published() -> list[Any]:
    """The documents of Istio's own tests, without what those say of them."""
    found = [case["resource"] for case in vectors.yaml_file("istio/validation-cases.yaml")["cases"]]
    for sample in SAMPLES:
        found += [each for each in yaml.safe_load_all(vectors.text(f"istio/crd-samples/{sample}.yaml")) if each]
    for each in found:
        each.pop("_err", None)
        each["metadata"].setdefault("namespace", "default")
    return found
