"""Every attribute that a rule can ask about: where it is written, which values it takes, how it is read and matched.

A new field of Istio's is a new row here and nothing elsewhere.
Source: security.istio.io AuthorizationPolicy: Source, Operation, Condition; istio.io "Authorization Policy Conditions".
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from countersign.core import hosts, paths
from countersign.core.facts import Headers, HttpRequest, RequestFacts, is_readable
from countersign.core.identity import Identity
from countersign.core.posture import Posture
from countersign.policy.match import (
    Outcome,
    agree,
    either,
    expand_trust_domain,
    in_network,
    namespace,
    network,
    present_or_wildcard,
    request_principal,
    wildcard,
)
from countersign.policy.resources import Action, Term

ABSENT: Final = "absent"
_MAX_PORT: Final = 65535
_PORT: Final = re.compile(r"[0-9]{1,5}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a rule judges: what Envoy said, what was proven, and how to read it."""

    facts: RequestFacts
    identity: Identity
    posture: Posture
    trust_domains: tuple[str, ...]


Got = Callable[[Term, Evidence], str]
Judge = Callable[[Term, Evidence, Action], Outcome]
Check = Callable[[str], str]  # what is wrong with a value; empty if nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribute:
    """``judge``: whether any value of a (not yet negated) term matches. ``got``: what the request has, for people."""

    judge: Judge
    got: Got
    check: Check = lambda _: ""
    unsupported: Check = lambda _: ""
    takes_argument: bool = False


def _principal(term: Term, evidence: Evidence, _: Action) -> Outcome:
    peer = evidence.identity.peer
    if peer is None:
        return Outcome.NO_MATCH
    values = (v for value in term.values for v in expand_trust_domain(value, evidence.trust_domains))
    return agree([any(wildcard(value)(peer.name) for value in values)])


def _namespace(term: Term, evidence: Evidence, _: Action) -> Outcome:
    peer = evidence.identity.peer
    return agree([peer is not None and any(namespace(value)(str(peer)) for value in term.values)])


def _got_peer(_: Term, evidence: Evidence) -> str:
    return ABSENT if evidence.identity.peer is None else str(evidence.identity.peer)


def _request_principal(term: Term, evidence: Evidence, _: Action) -> Outcome:
    token = evidence.identity.token
    if token is None or token.subject is None:  # Istio matches both claims, so both must be there
        return Outcome.NO_MATCH
    claims = (token.issuer, token.subject)
    return agree([any(request_principal(value)(claims) for value in term.values)])


def _got_request_principal(_: Term, evidence: Evidence) -> str:
    token = evidence.identity.token
    return ABSENT if token is None else f"{token.issuer}/{token.subject or ''}"


def _claim(path: Sequence[str] | None, term: Term, evidence: Evidence, _: Action) -> Outcome:
    found = _claim_at(term.argument if path is None else path, evidence)
    texts = [found] if isinstance(found, str) else found if isinstance(found, list | tuple) else []
    tests = [wildcard(value) for value in term.values]
    return agree([any(test(text) for text in texts if isinstance(text, str) for test in tests)])


def _claim_at(path: Sequence[str], evidence: Evidence) -> Any:  # noqa: ANN401 (any JSON value)
    """The claim at a path of literal names; only objects are descended."""
    found: Any = evidence.identity.token.claims if evidence.identity.token else None
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _got_claim(path: Sequence[str] | None, term: Term, evidence: Evidence) -> str:
    if evidence.identity.token is None:
        return "no token"
    found = _claim_at(term.argument if path is None else path, evidence)
    return ABSENT if found is None else str(found)


def _address(read: Callable[[RequestFacts], str], term: Term, evidence: Evidence, _: Action) -> Outcome:
    address = read(evidence.facts)
    outcome = either(in_network(network(value), address) for value in term.values)
    if outcome is Outcome.UNREADABLE and evidence.posture is Posture.ISTIO:
        return Outcome.NO_MATCH  # Envoy: an address that is no IP is in no range
    return outcome


def _port(term: Term, evidence: Evidence, _: Action) -> Outcome:
    port = evidence.facts.destination.port
    if not port and evidence.posture is Posture.STRICT:
        return Outcome.UNREADABLE
    return agree([any(port == int(value) for value in term.values)])


def _http(evidence: Evidence) -> HttpRequest | None:
    return evidence.facts.http


def _method(term: Term, evidence: Evidence, _: Action) -> Outcome:
    http = _http(evidence)
    return agree([http is not None and any(wildcard(value)(http.method) for value in term.values)])


def _host(term: Term, evidence: Evidence, action: Action) -> Outcome:
    http = _http(evidence)
    if http is None or not http.host:  # Envoy forwards `Host:` without a value, and a workload may have a default
        return Outcome.NO_MATCH if evidence.posture is Posture.ISTIO else Outcome.UNREADABLE
    host = hosts.fold(http.host)
    tests = [wildcard(hosts.fold(value)) for value in term.values]
    # An ALLOW that names a host means it as written, port and all; whatever excludes a host excludes every form of it.
    as_sent = evidence.posture is Posture.ISTIO or (action is Action.ALLOW and not term.negated)
    readings = (host,) if as_sent else hosts.readings(host)
    return agree(any(test(reading) for test in tests) for reading in readings)


def _path(term: Term, evidence: Evidence, _: Action) -> Outcome:
    http = _http(evidence)
    path = paths.without_query(http.path) if http else ""
    if not path and evidence.posture is Posture.STRICT:
        return Outcome.UNREADABLE  # CONNECT: a request for no path satisfies neither paths nor notPaths
    tests = [wildcard(value) for value in term.values]
    readings = paths.readings(path) if evidence.posture is Posture.STRICT else (path,)
    return agree(any(test(reading) for test in tests) for reading in readings)


def _header(term: Term, evidence: Evidence, _: Action) -> Outcome:
    http = _http(evidence)
    lines = http.headers.values(term.argument[0]) if http else ()
    if not lines:
        return Outcome.NO_MATCH
    tests = [present_or_wildcard(value) for value in term.values]
    if evidence.posture is Posture.ISTIO or http is None:
        return agree([any(test(line) for line in lines for test in tests)])
    if not all(is_readable(line) for line in lines):
        return Outcome.UNREADABLE
    readings = _header_readings(lines, http.headers)
    return agree(any(test(reading) for test in tests) for reading in readings)


def _header_readings(lines: tuple[str, ...], headers: Headers) -> set[str]:
    """Each value, and all of them joined, as different backends see a repeated header (CVE-2026-26308)."""
    joined = ",".join(lines)
    parts = joined.split(",") if headers.joined else lines
    return {joined, *lines, *(part.strip(" \t") for part in parts)}


def _got_header(term: Term, evidence: Evidence) -> str:
    http = _http(evidence)
    lines = http.headers.values(term.argument[0]) if http else ()
    return ", ".join(repr(line) for line in lines) or ABSENT


def _got_http(name: str) -> Got:
    def got(_: Term, evidence: Evidence) -> str:
        http = _http(evidence)
        return str(getattr(http, name)) or ABSENT if http else ABSENT

    return got


def _check_network(value: str) -> str:
    try:
        network(value)
    except ValueError:
        return "not an IP address or CIDR block"
    return ""


def _check_port(value: str) -> str:
    sound = _PORT.fullmatch(value) is not None and int(value) <= _MAX_PORT
    return "" if sound else "not a port, 0 to 65535"


def _check_path(value: str) -> str:
    return "`{` and `}` are for path templates, {*} and {**}" if "{" in value or "}" in value else ""


def _unsupported_path(value: str) -> str:
    return "path templates are not supported yet" if "{*}" in value or "{**}" in value else ""


def _claim_attribute(*path: str) -> Attribute:
    return Attribute(judge=partial(_claim, path), got=partial(_got_claim, path))


def _address_attribute(read: Callable[[RequestFacts], str]) -> Attribute:
    return Attribute(
        judge=partial(_address, read),
        got=lambda _, evidence: read(evidence.facts) or ABSENT,
        check=_check_network,
    )


ATTRIBUTES: Final[Mapping[str, Attribute]] = {
    "source.principal": Attribute(judge=_principal, got=_got_peer),
    "source.namespace": Attribute(judge=_namespace, got=_got_peer),
    "source.ip": _address_attribute(lambda facts: facts.source.address),
    "destination.ip": _address_attribute(lambda facts: facts.destination.address),
    "destination.port": Attribute(
        judge=_port, got=lambda _, evidence: str(evidence.facts.destination.port or ABSENT), check=_check_port
    ),
    "request.auth.principal": Attribute(judge=_request_principal, got=_got_request_principal),
    "request.auth.audiences": _claim_attribute("aud"),
    "request.auth.presenter": _claim_attribute("azp"),
    "request.auth.claims": Attribute(judge=partial(_claim, None), got=partial(_got_claim, None), takes_argument=True),
    "request.headers": Attribute(judge=_header, got=_got_header, takes_argument=True),
    # These three are fields of `operation` only, never `when` keys.
    "operation.host": Attribute(judge=_host, got=_got_http("host")),
    "operation.method": Attribute(judge=_method, got=_got_http("method")),
    "operation.path": Attribute(judge=_path, got=_got_http("path"), check=_check_path, unsupported=_unsupported_path),
}

# What Istio has and this version does not read yet: refused at load, never ignored.
UNSUPPORTED_KEYS: Final = frozenset(
    {"remote.ip", "source.serviceAccount", "source.trustDomain", "connection.sni", "experimental.envoy.filters"}
)
CONDITION_KEYS: Final = frozenset(key for key in ATTRIBUTES if not key.startswith("operation."))

SOURCE_FIELDS: Final[Mapping[str, str]] = {
    "principals": "source.principal",
    "namespaces": "source.namespace",
    "requestPrincipals": "request.auth.principal",
    "ipBlocks": "source.ip",
    "remoteIpBlocks": "remote.ip",
    "serviceAccounts": "source.serviceAccount",
    "trustDomains": "source.trustDomain",
}
OPERATION_FIELDS: Final[Mapping[str, str]] = {
    "hosts": "operation.host",
    "methods": "operation.method",
    "paths": "operation.path",
    "ports": "destination.port",
}
