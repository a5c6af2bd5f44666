"""What Countersign is told, so that Envoy can be held against it; and one finding of that."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import yaml

from countersign.core.identity import PeerSource, XfccMode
from countersign.core.posture import Posture
from countersign.policy.problems import Severity
from countersign.proxy.lint.codes import EnvoyCode


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """The flags of `serve` that an Envoy configuration must fit."""

    peer: PeerSource = PeerSource.CROSS_CHECK
    xfcc_mode: XfccMode = XfccMode.APPEND_FORWARD
    posture: Posture = Posture.STRICT
    remote_ip_hops: int = 0
    remote_ip_header: str = ""  # lower-case


@dataclass(frozen=True, slots=True)
class Finding:
    """``why`` says what is there and how it hurts, ``fix`` what to write."""

    code: EnvoyCode
    node: yaml.Node
    why: str
    fix: str
    severity: Severity = Severity.ERROR


Findings = Iterator[Finding]
FilterCheck = Callable[[yaml.Node], Findings]


def warning(code: EnvoyCode, node: yaml.Node, why: str, fix: str) -> Finding:
    """A finding that lets nothing pass by itself."""
    return Finding(code, node, why, fix, Severity.WARNING)
