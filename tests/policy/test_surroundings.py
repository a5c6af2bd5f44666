"""Who may meet whom is asked of neighbours only, and never of fewer than it should be."""

from itertools import product

import pytest
from countersign.policy.analysis.surroundings import Neighbours, Surroundings
from countersign.policy.resources import Meta, TargetRef

ROOT = "istio-system"
SURROUNDINGS = Surroundings(root_namespace=ROOT)
TARGETS = ["", "Gateway", "GatewayClass", "Service"]
ALL = [
    Meta(
        name=f"{namespace}-{kind}-{app}",
        namespace=namespace,
        selector={"app": app} if app else {},
        targets=(TargetRef(kind=kind, name="t"),) if kind else (),
        source="f.yaml:1",
    )
    for namespace, kind, app in product([ROOT, "a", "b"], TARGETS, ["", "x", "y"])
]


@pytest.mark.parametrize("meta", ALL, ids=lambda meta: meta.name)
@pytest.mark.parametrize("start", [0, 7, len(ALL)])
def test_the_neighbours_are_all_that_may_meet_in_their_order(meta: Meta, start: int) -> None:
    neighbours = Neighbours(ALL, lambda each: each, SURROUNDINGS)

    found = [each.name for each in neighbours.of(meta, start)]

    assert found == [each.name for each in ALL[start:] if SURROUNDINGS.may_meet(meta, each)]


def test_some_meet_across_namespaces_and_others_do_not() -> None:
    """So that the comparison above is of something."""
    neighbours = Neighbours(ALL, lambda each: each, SURROUNDINGS)

    met = {meta.name: {each.namespace for each in neighbours.of(meta)} for meta in ALL}

    assert met["a--"] == {ROOT, "a"}
    assert met["a-Gateway-"] == {ROOT, "a", "b"}
    assert met["istio-system--"] == {ROOT, "a", "b"}
