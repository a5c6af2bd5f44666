"""What a rule writes into an accepted request: Istio's output headers, and the original token taken out.

A client may never forge an output header: every header that any rule can produce is removed unless it is set now, as
by Envoy 1.40 (older ones remove those of the rules that they have tried, and none from a preflight).
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from countersign.core.decision import Mutations
from countersign.core.jwt_rule import JwtRule
from countersign.tokens.claim_text import claim_path, claim_text
from countersign.tokens.jose import UnverifiedToken
from countersign.tokens.locate import InHeader, InParameter, Located

_HEADER_VALUE: Final = re.compile(r"[\t\x20-\x7e]+")


# The output headers of one token by one rule, names and values.
Written = tuple[tuple[str, str], ...]


def accepted(rules: Iterable[JwtRule], rule: JwtRule, tokens: Iterable[tuple[Located, Written]]) -> Mutations:
    """The mutations of a request for which all ``tokens`` of the one ``rule`` have verified, in that order."""
    written: list[tuple[str, str]] = []
    removed: set[str] = set()
    parameters: list[str] = []
    for located, headers in tokens:
        written += headers
        if not rule.forward_original_token:
            where = located.where  # a cookie stays, as in Envoy
            if isinstance(where, InHeader):
                removed.add(where.name)
            elif isinstance(where, InParameter):
                parameters.append(where.name)
    kept = [header for header in written if header[0] not in removed]
    names = {name for name, _ in kept}
    removed.update([name for name in _producible(rules) if name not in names])
    return Mutations(
        set_headers=tuple(kept),
        remove_headers=tuple(sorted(removed)),
        remove_query_parameters=tuple(parameters),
    )


def anonymous(rules: Iterable[JwtRule]) -> Mutations:
    """The mutations of a request without a verified token."""
    return Mutations(remove_headers=tuple(sorted(set(_producible(rules)))))


def _producible(rules: Iterable[JwtRule]) -> list[str]:
    names: list[str] = []
    for rule in rules:
        if rule.output_payload_to_header:
            names.append(rule.output_payload_to_header)
        names += [output.header for output in rule.output_claim_to_headers]
    return names


def output_headers(rule: JwtRule, token: UnverifiedToken) -> Written:
    """What the rule writes for one of its verified tokens."""
    if not rule.output_payload_to_header and not rule.output_claim_to_headers:
        return ()
    return tuple(_headers(rule, token))


def _headers(rule: JwtRule, token: UnverifiedToken) -> Iterator[tuple[str, str]]:
    if rule.output_payload_to_header:
        yield rule.output_payload_to_header, token.payload_segment
    for output in rule.output_claim_to_headers:
        value = claim_text(_claim(token.payload, claim_path(output.claim)))
        # A claim is the issuer's, and through it often the user's: it must not end a header line.
        if _HEADER_VALUE.fullmatch(value):
            yield output.header, value


def _claim(payload: Mapping[str, Any], path: Iterable[str]) -> object:
    value: object = payload
    for name in path:
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value
