"""The policies that a verb looks at once: those of files, and of a cluster as it is now."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from countersign.core.jwt_rule import KeySource
from countersign.edge.kubernetes.address import Cluster, ClusterError, parse_cluster, why_no_client
from countersign.edge.kubernetes.placed import placed
from countersign.edge.policy_files import parse_files, read_files
from countersign.policy.parse import Loaded
from countersign.policy.problems import PolicyError
from countersign.tokens.keys import KeySet

_CLUSTER: Final = "kubernetes:"  # so that a slash too few is no file


def read_policies(roots: Sequence[str]) -> dict[str, str]:
    """Every policy's text by its name. Raise `PolicyError` for a file, `ClusterError` for a cluster."""
    clusters = [parse_cluster(root) for root in roots if root.startswith(_CLUSTER)]
    if len(clusters) > 1:
        raise ClusterError(f"{clusters[1]}: there is another cluster already, and objects have the same names in both")
    texts = read_files([Path(root) for root in roots if not root.startswith(_CLUSTER)])
    return {**texts, **_of_cluster(clusters[0])} if clusters else texts


def parse_policies(texts: Mapping[str, str], namespace: str) -> tuple[Loaded, Mapping[KeySource, KeySet]]:
    """As `parse_files`; the problems of a cluster's objects say which field they are about. Raise `PolicyError`."""
    try:
        return parse_files(texts, namespace)
    except PolicyError as error:
        raise PolicyError(placed(error.problems, texts)) from error


def _of_cluster(cluster: Cluster) -> Mapping[str, str]:
    why = why_no_client()
    if why:
        raise ClusterError(f"{cluster}: {why}")
    from countersign.edge.kubernetes.listing import read_cluster  # noqa: PLC0415 (its library need not be installed)

    return read_cluster(cluster)
