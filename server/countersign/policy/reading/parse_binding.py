"""The annotation that binds tokens to the workload that presents them.

    binding    = comparison { ("and" | newline) comparison }
    comparison = claim "==" "peer." ( "id" | "trust_domain" | "namespace" | "service_account" )
    claim      = name | "request.auth.claims" { "[" name "]" }

A plain name is one claim; names with dots or other marks, and nested ones, stand in brackets as in `when` keys.
Istio takes any annotation and looks at none but its own, so that the resource stays Istio's.
"""

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Final

import yaml

from countersign.core.binding import Binding, PeerPart
from countersign.core.claims import claim_path
from countersign.policy.problems import Code, did_you_mean
from countersign.policy.reading.document import Report, read_string

PREFIX: Final = "countersign.io/"
TOKEN_BINDING: Final = f"{PREFIX}token-binding"
MAX_COMPARISONS: Final = 8

_KIND: Final = "RequestAuthentication"
_CLAIMS: Final = "request.auth.claims"
_AND: Final = re.compile(r"\n|(?<=\s)and(?=\s)")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_BRACKETS: Final = re.compile(r"(?:\[[^\[\]]+\])+")
_PEER: Final = "peer."
_NEAR: Final = 0.85  # of difflib's ratio: a slip of one or two letters
_EXAMPLE: Final = "azp == peer.service_account"


def read_token_binding(annotations: Mapping[str, yaml.Node], kind: str, report: Report) -> tuple[Binding, ...]:
    """What the annotation says; nothing without it. One that is nearly ours would bind nothing, so it is an error."""
    for name, where in annotations.items():
        if name != TOKEN_BINDING and (name.startswith(PREFIX) or get_close_matches(name, [TOKEN_BINDING], 1, _NEAR)):
            report.error(where, Code.UNKNOWN_FIELD, f"unknown annotation `{name}`", did_you_mean(name, [TOKEN_BINDING]))
    if TOKEN_BINDING not in annotations:
        return ()
    node = annotations[TOKEN_BINDING]
    if kind != _KIND:
        report.error(node, Code.INVALID_VALUE, f"`{TOKEN_BINDING}` is for {_KIND}, not for {kind}", "remove it")
        return ()
    text = read_string(node, report, TOKEN_BINDING)
    if text is None:
        return ()
    comparisons = [part.strip() for part in _AND.split(text.strip())]
    if len(comparisons) > MAX_COMPARISONS:
        report.error(node, Code.INVALID_VALUE, f"more than {MAX_COMPARISONS} comparisons in `{TOKEN_BINDING}`")
    found = (_comparison(part, node, report) for part in comparisons)
    return tuple(binding for binding in found if binding is not None)


def _comparison(text: str, node: yaml.Node, report: Report) -> Binding | None:
    left, equals, right = (part.strip() for part in text.partition("=="))
    if not left or not equals or not right:
        wrong = (
            f"`{text}` in `{TOKEN_BINDING}` is no comparison" if text else f"nothing to compare in `{TOKEN_BINDING}`"
        )
        report.error(node, Code.INVALID_VALUE, wrong, f"such as `{_EXAMPLE}`, several joined with `and`")
        return None
    claim, part = _claim(left, node, report), _part(right, node, report)
    if claim is None or part is None:
        return None
    return Binding(claim=claim, part=part, text=f"{left} == {right}", source=report.source(node))


def _claim(text: str, node: yaml.Node, report: Report) -> tuple[str, ...] | None:
    if _NAME.fullmatch(text):
        return (text,)
    brackets = text.removeprefix(_CLAIMS)
    if brackets != text and _BRACKETS.fullmatch(brackets):
        return claim_path(brackets[1:-1])
    wrong = f"`{text}` in `{TOKEN_BINDING}` is no claim"
    report.error(node, Code.INVALID_VALUE, wrong, f"a name, or `{_CLAIMS}[a][b]` for nested ones and names with dots")
    return None


def _part(text: str, node: yaml.Node, report: Report) -> PeerPart | None:
    known = [f"{_PEER}{part}" for part in PeerPart]
    if text in known:
        return PeerPart(text.removeprefix(_PEER))
    wrong = f"`{text}` in `{TOKEN_BINDING}` is no part of a peer"
    report.error(node, Code.INVALID_VALUE, wrong, did_you_mean(text, known))
    return None
