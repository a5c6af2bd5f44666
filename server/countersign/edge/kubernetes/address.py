"""How a cluster is named among the sources of policies.

``kubernetes://``, and behind ``?`` whatever is not the default: ``namespace=NS`` (repeatable; all namespaces without),
``kubeconfig=/path``, ``context=NAME``.
"""

import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, quote

from countersign.policy.problems import did_you_mean

SCHEME: Final = "kubernetes://"
EXTRA: Final = "pip install 'countersign[kubernetes]'"

_PARAMETERS: Final = ("namespace", "kubeconfig", "context")
_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")  # RFC 1123, as Kubernetes wants namespaces


class ClusterError(ValueError):
    """A cluster that cannot be meant or reached; the message says what is wrong, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A cluster, and the ``namespaces`` whose policies count; all of them if there are none.

    Without ``kubeconfig`` and ``context``, the pod's own service account is used, else ``KUBECONFIG``.
    """

    namespaces: tuple[str, ...] = ()
    kubeconfig: Path | None = None
    context: str = ""

    def __str__(self) -> str:
        """The text that is read back as the same."""
        given = [("namespace", name) for name in self.namespaces]
        if self.kubeconfig is not None:
            given.append(("kubeconfig", str(self.kubeconfig)))
        if self.context:
            given.append(("context", self.context))
        return SCHEME + ("?" if given else "") + "&".join(f"{name}={quote(text)}" for name, text in given)


def parse_cluster(text: str) -> Cluster:
    """Read the name of a cluster. Raise `ClusterError`."""
    start, question, query = text.partition("?")
    if start != SCHEME:
        raise ClusterError(f"`{text}`: write {SCHEME}, or {SCHEME}?namespace=NAME")
    try:
        return _cluster(_parameters(query) if question else {})
    except ClusterError as error:
        raise ClusterError(f"`{text}`: {error}") from error


def _parameters(query: str) -> dict[str, list[str]]:
    try:
        given = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
    except ValueError:
        given = []
    if not given:
        raise ClusterError("behind the `?` come name=value, joined with `&`")
    found: dict[str, list[str]] = {}
    for name, value in given:
        if name not in _PARAMETERS:
            raise ClusterError(f"unknown parameter `{name}`; {did_you_mean(name, _PARAMETERS)}")
        if not value:
            raise ClusterError(f"`{name}` is empty")
        found.setdefault(name, []).append(value)
    return found


def _cluster(found: dict[str, list[str]]) -> Cluster:
    for name, values in found.items():
        if len(set(values)) < len(values) or (name != "namespace" and len(values) > 1):
            raise ClusterError(f"`{name}` more than once")
    namespaces = tuple(found.get("namespace", ()))
    for namespace in namespaces:
        if not _LABEL.fullmatch(namespace):
            raise ClusterError(f"`{namespace}` is no namespace: lower-case letters, digits and `-` only")
    kubeconfig = found.get("kubeconfig")
    return Cluster(
        namespaces=namespaces,
        kubeconfig=None if kubeconfig is None else Path(kubeconfig[0]),
        context=found.get("context", [""])[0],
    )


def why_no_client() -> str:
    """What is missing to ask a cluster; empty if nothing is. Imports nothing."""
    return "" if find_spec("lightkube") else f"the client library is not installed: {EXTRA}"
