"""``kubernetes://``: what may be said in it, and what is refused."""

from pathlib import Path

import pytest
from countersign.edge.kubernetes.address import Cluster, ClusterError, parse_cluster


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("kubernetes://", Cluster()),
        ("kubernetes://?namespace=apps", Cluster(namespaces=("apps",))),
        ("kubernetes://?namespace=apps&namespace=istio-system", Cluster(namespaces=("apps", "istio-system"))),
        ("kubernetes://?kubeconfig=/a%20b&context=x%26y", Cluster(kubeconfig=Path("/a b"), context="x&y")),
        ("kubernetes://?context=admin@mesh", Cluster(context="admin@mesh")),
    ],
)
def test_a_cluster_is_named_by_what_is_not_the_default(text: str, expected: Cluster) -> None:
    found = parse_cluster(text)

    assert found == expected
    assert parse_cluster(str(found)) == found


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("kubernetes:", "write kubernetes://, or kubernetes://?namespace=NAME"),
        ("kubernetes://apps", "write kubernetes://, or kubernetes://?namespace=NAME"),
        ("kubernetes://?", "name=value"),
        ("kubernetes://?apps", "name=value"),
        ("kubernetes://?namespaces=apps", "unknown parameter `namespaces`; did you mean `namespace`?"),
        ("kubernetes://?namespace=", "`namespace` is empty"),
        ("kubernetes://?namespace=Apps", "`Apps` is no namespace"),
        ("kubernetes://?namespace=a/../b", "`a/../b` is no namespace"),
        ("kubernetes://?namespace=apps\n", "is no namespace"),
        ("kubernetes://?namespace=apps&namespace=apps", "`namespace` more than once"),
        ("kubernetes://?context=a&context=b", "`context` more than once"),
    ],
)
def test_what_cannot_be_meant_is_refused(text: str, says: str) -> None:
    with pytest.raises(ClusterError) as error:
        parse_cluster(text)

    assert says in str(error.value)
    assert repr(text)[1:-1] in repr(str(error.value))
