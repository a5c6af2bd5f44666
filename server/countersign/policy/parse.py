"""Policy files to `Resources`: every problem of every file at once, or a set that means what it says.

Other kinds of resource are passed over; anything unknown inside the three kinds is an error, because a field that
is dropped makes a rule wider than it reads.
Source: security.istio.io v1 and v1beta1; validation rules of Istio's webhook (pkg/config/validation).
"""

import contextlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import yaml

from countersign.policy.problems import Code, PolicyError, Position, Problem, Severity, did_you_mean
from countersign.policy.reading.document import (
    Report,
    describe,
    documents,
    is_null,
    read_fields,
    read_list,
    read_string,
)
from countersign.policy.reading.parse_authorization import parse_authorization_policy
from countersign.policy.reading.parse_binding import read_token_binding
from countersign.policy.reading.parse_jwt import CheckJwks, parse_request_authentication
from countersign.policy.reading.parse_mtls import parse_peer_authentication
from countersign.policy.reading.parse_scope import check_annotations, read_dry_run, read_selector, read_targets
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
_TIME: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:Z|[-+][0-9]{2}:[0-9]{2})"
)  # RFC 3339
_TOP: Final = frozenset({"apiVersion", "kind", "metadata", "spec", "status"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What the files say, the warnings about it, and which resources are of kinds that are not ours."""

    resources: Resources
    warnings: tuple[Problem, ...]
    skipped: tuple[str, ...] = ()


@dataclass(slots=True)
class _Collected:
    default_namespace: str | None
    check_jwks: CheckJwks
    peer: list[PeerAuthentication] = field(default_factory=list)
    request: list[RequestAuthentication] = field(default_factory=list)
    authorization: list[AuthorizationPolicy] = field(default_factory=list)
    seen: dict[tuple[str, str, str], str] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)


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
    return Loaded(resources=resources, warnings=tuple(problems), skipped=tuple(collected.skipped))


def _resource(root: yaml.Node, report: Report, collected: _Collected) -> None:
    members = _peek(root)
    if members is None:
        report.error(root, Code.WRONG_TYPE, f"a resource wants an object, found {describe(root)}")
        return
    if len(members) < len(root.value):  # a second `kind` must not hide what the first one said
        read_fields(root, report, None, "resource")
        return
    kind, api_version = _scalar(members.get("kind")), _scalar(members.get("apiVersion"))
    if kind == "List" and "items" in members:
        for item in read_list(members["items"], report, "items"):
            _resource(item, report, collected)
    elif not api_version.startswith(f"{_GROUP}/") and kind not in _KINDS:
        _note_lookalike(root, kind, api_version, report)
        collected.skipped.append(f"{kind or 'something without kind'} ({report.source(root)})")
    elif _identify(root, members, kind, api_version, report):
        _read(root, kind, report, collected)


def _read(root: yaml.Node, kind: str, report: Report, collected: _Collected) -> None:
    """Read a resource of one of our kinds."""
    members = read_fields(root, report, _TOP, kind)
    meta = _meta(root, kind, members, report, collected.default_namespace)
    if meta is None:
        return
    identity = (kind, meta.namespace, meta.name)
    if identity in collected.seen:
        wrong = f"{kind} `{meta.namespace}/{meta.name}` is here twice, first at {collected.seen[identity]}"
        report.error(root, Code.DUPLICATE_RESOURCE, wrong, "rename or delete one of them")
        return
    collected.seen[identity] = meta.source
    spec = members.get("spec")
    annotations = _annotations(members["metadata"], report)
    check_annotations(annotations, report)
    dry_run = read_dry_run(annotations, kind, report)
    bindings = read_token_binding(annotations, kind, report)
    match kind:
        case "PeerAuthentication":
            collected.peer.append(parse_peer_authentication(meta, spec, report))
        case "RequestAuthentication":
            request = parse_request_authentication(meta, spec, report, collected.check_jwks, bindings)
            collected.request.append(request)
        case _:
            collected.authorization.append(parse_authorization_policy(meta, spec, report, dry_run=dry_run))


def _annotations(metadata: yaml.Node, report: Report) -> dict[str, yaml.Node]:
    node = (_peek(metadata) or {}).get("annotations")
    return {} if node is None or is_null(node) else read_fields(node, report, None, "metadata.annotations")


def _peek(root: yaml.Node | None) -> dict[str, yaml.Node] | None:
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
    places = _peek(members.get("spec")) or {}
    return Meta(
        name=name,
        namespace=namespace,
        selector=read_selector(places, report),
        targets=read_targets(places, report) if kind != "PeerAuthentication" else (),
        created=_created(metadata.get("creationTimestamp"), report),
        source=report.source(root),
    )


def _created(node: yaml.Node | None, report: Report) -> str:
    """The time in UTC, so that it sorts as text; empty, and so the oldest, if nobody says it."""
    if node is None or is_null(node):
        return ""
    text = _scalar(node)
    if _TIME.fullmatch(text) is not None:
        with contextlib.suppress(ValueError, OverflowError):  # no such day, or none in UTC
            return datetime.fromisoformat(text).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    wrong = f"`metadata.creationTimestamp` is no time: `{text}`"
    report.error(node, Code.INVALID_VALUE, wrong, "such as 2026-01-31T12:00:00Z, or leave it out")
    return ""


def unreadable(file: str, why: str) -> Problem:
    """The problem of a file that cannot be read at all."""
    return Problem(severity=Severity.ERROR, code=Code.UNREADABLE_FILE, position=Position(file, 1, 1), message=why)


def errors_in(problems: Iterable[Problem]) -> list[Problem]:
    """The errors among problems."""
    return [problem for problem in problems if problem.severity is Severity.ERROR]
