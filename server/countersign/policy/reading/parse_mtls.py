"""PeerAuthentication: which ports want mTLS.

Source: security.istio.io PeerAuthentication; ValidatePeerAuthentication in Istio's pkg/config/validation.
"""

import re
from typing import Final

import yaml

from countersign.policy.problems import Code, did_you_mean
from countersign.policy.reading.document import Report, is_null, read_fields, read_string
from countersign.policy.resources import Meta, MtlsMode, PeerAuthentication

_SPEC: Final = frozenset({"selector", "mtls", "portLevelMtls"})
_MAX_PORT: Final = 65535
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}")  # a leading zero is octal to some YAML readers


def parse_peer_authentication(meta: Meta, spec: yaml.Node | None, report: Report) -> PeerAuthentication:
    """Read ``spec``; what is wrong goes to the report."""
    members = {} if spec is None or is_null(spec) else read_fields(spec, report, _SPEC, "spec")
    ports: dict[int, MtlsMode] = {}
    if "portLevelMtls" in members:
        node = members["portLevelMtls"]
        if not meta.selector:
            report.error(
                node, Code.INVALID_VALUE, "`portLevelMtls` without a `selector`", "say whose ports: add matchLabels"
            )
        entries = read_fields(node, report, None, "portLevelMtls", numeric=True)
        if not entries:
            report.error(node, Code.INVALID_VALUE, "`portLevelMtls` is empty", "leave it out")
        for name, value in entries.items():
            port = int(name) if _PORT.fullmatch(name) else 0
            if not 0 < port <= _MAX_PORT:
                report.error(value, Code.INVALID_VALUE, f"`{name}` is not a port, 1 to {_MAX_PORT}")
            ports[port] = _mode(value, report, f"portLevelMtls.{name}")
    mode = _mode(members.get("mtls"), report, "mtls")
    return PeerAuthentication(meta=meta, mode=mode, ports=ports)


def _mode(node: yaml.Node | None, report: Report, where: str) -> MtlsMode:
    if node is None or is_null(node):
        return MtlsMode.UNSET
    members = read_fields(node, report, frozenset({"mode"}), where)
    if is_null(members.get("mode")):
        return MtlsMode.UNSET
    text = read_string(members["mode"], report, f"{where}.mode")
    if text is None:
        return MtlsMode.UNSET
    if text not in MtlsMode.__members__:
        report.error(
            members["mode"], Code.INVALID_VALUE, f"unknown mode `{text}`", did_you_mean(text, MtlsMode.__members__)
        )
        return MtlsMode.UNSET
    return MtlsMode(text)
