"""Where a resource applies: ``selector``, ``targetRef(s)``, and whether it only tries (dry run).

Source: istio.type.v1beta1 WorkloadSelector and PolicyTargetReference; validation of both in Istio's
pkg/config/validation; istio.io "Dry run".
"""

from typing import Final

import yaml

from countersign.policy.problems import Code
from countersign.policy.reading.document import Report, is_null, read_fields, read_list, read_string, read_string_map
from countersign.policy.resources import TargetRef

_MAX_TARGETS: Final = 16
_MAX_LABEL: Final = 63  # characters of a label's value in Kubernetes: a longer one selects nothing
_MAX_NAME: Final = 253  # characters of a name in Kubernetes
_TARGET: Final = frozenset({"group", "kind", "name", "namespace"})
_TARGETS: Final = frozenset(
    {
        ("", "Service"),
        ("core", "Service"),
        ("networking.istio.io", "ServiceEntry"),
        ("gateway.networking.k8s.io", "Gateway"),
        ("gateway.networking.k8s.io", "GatewayClass"),
    }
)
# Go's strconv.ParseBool, which Istio reads the annotation with.
_TRUE: Final = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE: Final = frozenset({"0", "f", "F", "FALSE", "false", "False"})
DRY_RUN: Final = "istio.io/dry-run"
# Istio writes these itself, on what it makes of other resources (`validateMetadata` refuses them).
_RESERVED: Final = frozenset(
    {"internal.istio.io/parents", "internal.istio.io/parent-namespace", "internal.istio.io/webhook-always-reject"}
)


def read_selector(members: dict[str, yaml.Node], report: Report) -> dict[str, str]:
    """The labels of ``selector.matchLabels``; empty selects everything."""
    node = members.get("selector")
    if node is None or is_null(node):
        return {}
    fields = read_fields(node, report, frozenset({"matchLabels"}), "selector")
    if not isinstance(node, yaml.MappingNode):
        return {}
    match_labels = fields.get("matchLabels")
    empty = isinstance(match_labels, yaml.MappingNode) and not match_labels.value
    if match_labels is None or is_null(match_labels) or empty:
        report.warning(node, Code.INVALID_VALUE, "an empty `selector` selects every workload", "leave it out")
        return {}
    labels = read_string_map(match_labels, report, "selector.matchLabels")
    for name, value in labels.items():
        if not name or "*" in name or "*" in value:
            wrong = f"label `{name}: {value}` in `selector.matchLabels`"
            report.error(match_labels, Code.INVALID_VALUE, wrong, "labels are matched literally: no empty name, no `*`")
        if len(value) > _MAX_LABEL:
            wrong = f"the value of label `{name}` in `selector.matchLabels` is longer than {_MAX_LABEL} characters"
            report.error(match_labels, Code.INVALID_VALUE, wrong, "no workload has such a label")
    return labels


def read_targets(members: dict[str, yaml.Node], report: Report) -> tuple[TargetRef, ...]:
    """``targetRefs``, or the one ``targetRef``; at most one way of saying where."""
    said = [name for name in ("selector", "targetRef", "targetRefs") if not is_null(members.get(name))]
    for name in said[1:]:
        report.error(members[name], Code.INVALID_VALUE, f"`{name}` beside `{said[0]}`", "keep one of them")
    nodes: list[yaml.Node] = []
    if not is_null(members.get("targetRef")):
        nodes.append(members["targetRef"])
    if not is_null(members.get("targetRefs")):
        nodes += read_list(members["targetRefs"], report, "targetRefs")
    if len(nodes) > _MAX_TARGETS:
        report.error(nodes[_MAX_TARGETS], Code.INVALID_VALUE, f"more than {_MAX_TARGETS} targets", "split the policy")
    return tuple(_target(node, report) for node in nodes)


def _target(node: yaml.Node, report: Report) -> TargetRef:
    members = read_fields(node, report, _TARGET, "targetRefs")
    texts = {name: read_string(value, report, f"targetRefs.{name}") or "" for name, value in members.items()}
    if not texts.get("name"):
        report.error(node, Code.MISSING_FIELD, "`targetRefs` entry without `name`")
    if len(texts.get("name", "")) > _MAX_NAME:
        report.error(members["name"], Code.INVALID_VALUE, f"the name of a target is longer than {_MAX_NAME} characters")
    if texts.get("namespace"):
        where = members["namespace"]
        report.error(where, Code.INVALID_VALUE, "a target is in the policy's own namespace", "leave it out")
    group, kind = texts.get("group", ""), texts.get("kind", "")
    if isinstance(node, yaml.MappingNode) and (group, kind) not in _TARGETS:
        wrong = f"a target cannot be a `{kind}` of the group `{group}`"
        known = "wants a Gateway, GatewayClass, Service or ServiceEntry, and its group"
        report.error(members.get("kind", node), Code.INVALID_VALUE, wrong, known)
    return TargetRef(kind=kind, name=texts.get("name", ""))


def check_annotations(annotations: dict[str, yaml.Node], report: Report) -> None:
    """Refuse what only Istio may say."""
    for name in annotations.keys() & _RESERVED:
        wrong = f"the annotation `{name}` is Istio's own"
        report.error(annotations[name], Code.INVALID_VALUE, wrong, "remove it")


def read_dry_run(annotations: dict[str, yaml.Node], kind: str, report: Report) -> bool:
    """Whether the annotation says that the policy is only tried."""
    node = annotations.get(DRY_RUN)
    if node is None:
        return False
    if kind != "AuthorizationPolicy":
        report.error(node, Code.INVALID_VALUE, f"`{DRY_RUN}` is for AuthorizationPolicy, not for {kind}", "remove it")
        return False
    text = read_string(node, report, DRY_RUN)
    if text is not None and text not in _TRUE | _FALSE:
        report.error(node, Code.INVALID_VALUE, f"`{DRY_RUN}: {text}`", 'write "true" or "false"')
    return text in _TRUE
