"""Policy files to `Resources`: every problem of every file at once, or a set that means what it says.

Other kinds of resource are passed over; anything unknown inside the three kinds is an error, because a field that
is dropped makes a rule wider than it reads.
Source: security.istio.io v1 and v1beta1; validation rules of Istio's webhook (pkg/config/validation).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import yaml

from countersign.policy.document import (
    Report,
    describe,
    documents,
    is_null,
    read_fields,
    read_list,
    read_string,
    read_string_map,
)
from countersign.policy.parse_authorization import parse_authorization_policy
from countersign.policy.parse_jwt import CheckJwks, parse_request_authentication
from countersign.policy.parse_mtls import parse_peer_authentication
from countersign.policy.problems import Code, PolicyError, Position, Problem, Severity, did_you_mean
from countersign.policy.resources import (
    AuthorizationPolicy,
    Meta,
    PeerAuthentication,
    RequestAuthentication,
    Resources,
)

_GROUP: Final = "security.istio.io"
_VERSIONS: Final = frozenset({f"{_GROUP}/v1", f"{_GROUP}/v1beta1"})
_KINDS: Final = frozenset({"AuthorizationPolicy", "PeerAuthentication", "RequestAuthentication"})
_TOP: Final = frozenset({"apiVersion", "kind", "metadata", "spec", "status"})
_DRY_RUN: Final = "istio.io/dry-run"


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What the files say, and the warnings about it."""

    resources: Resources
    warnings: tuple[Problem, ...]


@dataclass(slots=True)
class _Collected:
    default_namespace: str | None
    check_jwks: CheckJwks
    peer: list[PeerAuthentication] = field(default_factory=list)
    request: list[RequestAuthentication] = field(default_factory=list)
    authorization: list[AuthorizationPolicy] = field(default_factory=list)
    seen: dict[tuple[str, str, str], str] = field(default_factory=dict)


def parse(files: Mapping[str, str], default_namespace: str | None, check_jwks: CheckJwks) -> Loaded:
    """Read files (name to text). Raise `PolicyError` with all problems if any of them is an error.

    ``default_namespace`` is where resources without ``metadata.namespace`` belong, as with ``kubectl -n``; without
    it they are errors. ``check_jwks`` says what is wrong with the text of an inline key set, empty if nothing.
    """
    collected = _Collected(default_namespace, check_jwks)
    problems: list[Problem] = []
    for name in sorted(files):
        report = Report(name, files[name].splitlines())
        for root in documents(files[name], report):
            if not is_null(root):
                _resource(root, report, collected)
        problems += report.problems
    problems.sort(key=lambda problem: problem.position)
    if any(problem.severity is Severity.ERROR for problem in problems):
        raise PolicyError(problems)
    resources = Resources(
        peer_authentications=tuple(collected.peer),
        request_authentications=tuple(collected.request),
        authorization_policies=tuple(collected.authorization),
    )
    return Loaded(resources=resources, warnings=tuple(problems))


def _resource(root: yaml.Node, report: Report, collected: _Collected) -> None:
    members = _peek(root)
    if members is None:
        report.error(root, Code.WRONG_TYPE, f"a resource wants an object, found {describe(root)}")
        return
    kind, api_version = _scalar(members.get("kind")), _scalar(members.get("apiVersion"))
    if kind == "List" and "items" in members:
        for item in read_list(members["items"], report, "items"):
            _resource(item, report, collected)
        return
    if not api_version.startswith(f"{_GROUP}/") and kind not in _KINDS:
        _note_lookalike(root, kind, api_version, report)
        return
    if not _identify(root, members, kind, api_version, report):
        return
    members = read_fields(root, report, _TOP, kind)
    meta = _meta(root, kind, members, report, collected.default_namespace)
    if meta is None:
        return
    identity = (kind, meta.namespace, meta.name)
    if identity in collected.seen:
        first = collected.seen[identity]
        report.error(
            root,
            Code.DUPLICATE_RESOURCE,
            f"{kind} `{meta.namespace}/{meta.name}` is here twice, first at {first}",
            "rename or delete one of them",
        )
        return
    collected.seen[identity] = meta.source
    spec = members.get("spec")
    match kind:
        case "PeerAuthentication":
            collected.peer.append(parse_peer_authentication(meta, spec, report))
        case "RequestAuthentication":
            collected.request.append(parse_request_authentication(meta, spec, report, collected.check_jwks))
        case _:
            collected.authorization.append(parse_authorization_policy(meta, spec, report))


def _peek(root: yaml.Node) -> dict[str, yaml.Node] | None:
    if not isinstance(root, yaml.MappingNode):
        return None
    return {str(key.value): value for key, value in root.value if isinstance(key, yaml.ScalarNode)}


def _scalar(node: yaml.Node | None) -> str:
    return str(node.value) if isinstance(node, yaml.ScalarNode) else ""


def _note_lookalike(root: yaml.Node, kind: str, api_version: str, report: Report) -> None:
    """Another kind is none of our business, unless it is one of ours misspelt."""
    if kind.lower() in {known.lower() for known in _KINDS} or (not kind and not api_version):
        report.error(
            root,
            Code.INVALID_VALUE,
            f"`kind: {kind}` with `apiVersion: {api_version}` is no resource of {_GROUP}",
            did_you_mean(kind, _KINDS),
        )


def _identify(root: yaml.Node, members: Mapping[str, yaml.Node], kind: str, api_version: str, report: Report) -> bool:
    if kind not in _KINDS:
        report.error(
            members.get("kind", root), Code.INVALID_VALUE, f"unknown kind `{kind}`", did_you_mean(kind, _KINDS)
        )
        return False
    if api_version not in _VERSIONS:
        report.error(
            members.get("apiVersion", root),
            Code.INVALID_VALUE,
            f"`apiVersion: {api_version}` of {kind}",
            did_you_mean(api_version, _VERSIONS),
        )
        return False
    return True


def _meta(
    root: yaml.Node, kind: str, members: Mapping[str, yaml.Node], report: Report, default_namespace: str | None
) -> Meta | None:
    if is_null(members.get("metadata")):
        report.error(root, Code.MISSING_FIELD, f"{kind} without `metadata`")
        return None
    metadata = read_fields(members["metadata"], report, None, "metadata")
    name = read_string(metadata["name"], report, "metadata.name") if "name" in metadata else None
    if not name:
        report.error(members["metadata"], Code.MISSING_FIELD, f"{kind} without `metadata.name`")
        return None
    namespace = default_namespace
    if not is_null(metadata.get("namespace")):
        namespace = read_string(metadata["namespace"], report, "metadata.namespace")
    if not namespace:
        report.error(
            members["metadata"],
            Code.MISSING_FIELD,
            f"{kind} `{name}` without `metadata.namespace`",
            "write the namespace it applies to, or start with --namespace",
        )
        return None
    if not is_null(metadata.get("annotations")):
        annotations = read_fields(metadata["annotations"], report, None, "metadata.annotations")
        if _DRY_RUN in annotations:
            report.error(annotations[_DRY_RUN], Code.UNSUPPORTED, f"`{_DRY_RUN}` is not supported yet")
    return Meta(
        name=name,
        namespace=namespace,
        selector=_selector(members.get("spec"), report),
        created=_scalar(metadata.get("creationTimestamp")),
        source=report.source(root),
    )


def _selector(spec: yaml.Node | None, report: Report) -> dict[str, str]:
    node = (_peek(spec) or {}).get("selector") if spec is not None else None
    if node is None or is_null(node):
        return {}
    members = read_fields(node, report, frozenset({"matchLabels"}), "selector")
    if not isinstance(node, yaml.MappingNode):
        return {}
    match_labels = members.get("matchLabels")
    if match_labels is None or is_null(match_labels) or not match_labels.value:
        report.warning(node, Code.INVALID_VALUE, "an empty `selector` selects every workload", "leave it out")
        return {}
    labels = read_string_map(match_labels, report, "selector.matchLabels")
    for name, value in labels.items():
        if not name or "*" in name or "*" in value:
            report.error(
                match_labels,
                Code.INVALID_VALUE,
                f"label `{name}: {value}` in `selector.matchLabels`",
                "labels are matched literally: no empty name, no `*`",
            )
    return labels


def unreadable(file: str, why: str) -> Problem:
    """The problem of a file that cannot be read at all."""
    return Problem(severity=Severity.ERROR, code=Code.UNREADABLE_FILE, position=Position(file, 1, 1), message=why)


def errors_in(problems: Iterable[Problem]) -> list[Problem]:
    """The errors among problems."""
    return [problem for problem in problems if problem.severity is Severity.ERROR]
