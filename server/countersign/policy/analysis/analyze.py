"""Policies that load and do not do what they seem to: what `countersign analyze` says beside errors.

Every check is for something that Istio accepts without a word and that has hurt people. Each finding says what was
found, what comes of it, and what to write instead; docs/analyze.md has a row for each code.
Source: `istioctl analyze`, Kiali's validations, and the issues of istio/istio that the checks name.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final

from countersign.core.jwt_rule import JwtRule, KeySource, RemoteKeys
from countersign.policy.analysis.analyze_rules import check_rule
from countersign.policy.analysis.analyze_scope import check_scopes, is_ignored
from countersign.policy.analysis.analyze_values import check_values
from countersign.policy.analysis.findings import Context
from countersign.policy.analysis.notes import Notes
from countersign.policy.analysis.surroundings import Neighbours, Surroundings
from countersign.policy.problems import Code, Problem
from countersign.policy.resources import AuthorizationPolicy, PeerAuthentication, RequestAuthentication, Resources

_PLAIN_HTTP: Final = re.compile(r"http://(?:\[([^\]]*)\]|([^/:?]*)).*", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """``resources`` and the ``texts`` that say them, by file; ``unusable_keys`` of inline key sets, and why.

    ``complete``: these are all resources of the mesh, so that what is missing among them is missing.
    """

    resources: Resources
    texts: Mapping[str, str]
    unusable_keys: Mapping[KeySource, Sequence[str]] = field(default_factory=dict)
    complete: bool = True


def analyze(written: Written, surroundings: Surroundings) -> tuple[Problem, ...]:
    """Warnings, by position."""
    resources, complete = written.resources, written.complete
    notes = Notes(written.texts)
    requests = Neighbours(resources.request_authentications if complete else (), lambda each: each.meta, surroundings)
    for policy in resources.authorization_policies:
        context = _context(policy, requests, surroundings)
        for rule in policy.rules:
            check_values(rule, context, notes)
            check_rule(policy, rule, surroundings.root_namespace, notes)
    for peer in resources.peer_authentications:
        _check_peer(peer, surroundings, notes)
    for request in resources.request_authentications:
        _check_request(request, written.unusable_keys, notes)
    if complete:
        check_scopes(resources, surroundings, notes)
    return notes.problems()


def _context(
    policy: AuthorizationPolicy, requests: Neighbours[RequestAuthentication], surroundings: Surroundings
) -> Context:
    """What tokens may come with the requests that a policy judges. A claim counts as split if every issuer's is."""
    rules = [rule for found in requests.of(policy.meta) for rule in found.rules]
    if not rules:
        return Context(surroundings=surroundings, action=policy.action)
    return Context(
        surroundings=surroundings,
        action=policy.action,
        issuers=frozenset(rule.issuer for rule in rules),
        split_claims=frozenset.intersection(*(rule.space_delimited_claims for rule in rules)),
    )


def _check_peer(peer: PeerAuthentication, surroundings: Surroundings, notes: Notes) -> None:
    if is_ignored(peer, surroundings):
        message = (
            f"PeerAuthentication `{peer.meta.namespace}/{peer.meta.name}` has no effect: "
            "in the root namespace one with a selector is ignored"
        )
        write = "move it to the namespace of its workloads, or drop the selector if the whole mesh is meant"
        notes.warn(peer.meta.source, Code.INEFFECTIVE_POLICY, message, write)


def _check_request(
    request: RequestAuthentication, unusable_keys: Mapping[KeySource, Sequence[str]], notes: Notes
) -> None:
    if not request.rules:
        message = (
            f"RequestAuthentication `{request.meta.namespace}/{request.meta.name}` has no effect: "
            "without `jwtRules` no token is looked at"
        )
        notes.warn(request.meta.source, Code.INEFFECTIVE_POLICY, message, "add a rule, or delete it")
    for rule in request.rules:
        _check_transport(rule, notes)
        for why in unusable_keys.get(rule.keys, ()):
            message = f"a key of issuer `{rule.issuer}` is put aside: {why}"
            write = "list the public keys that verify, and no others; a private key that stood here is known"
            notes.warn(rule.source, Code.UNUSABLE_KEY, message, write)


def _check_transport(rule: JwtRule, notes: Notes) -> None:
    uri = rule.keys.uri if isinstance(rule.keys, RemoteKeys) else ""
    found = _PLAIN_HTTP.fullmatch(uri)
    if found is not None and not _is_loopback(found[1] or found[2]):
        message = f"the keys of issuer `{rule.issuer}` come over plain HTTP: whoever is on the way can sign tokens"
        notes.warn(rule.source, Code.PLAINTEXT_KEYS, message, f"write `https{uri.removeprefix('http')}`", uri)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
