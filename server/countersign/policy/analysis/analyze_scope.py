"""Resources against each other: who overrules whom, what applies to nobody, what is authenticated and never asked for.

Source: Istio's ComposePeerAuthentication (the oldest of a level counts), RequestAuthentication (a missing token is
accepted); codes of `istioctl analyze` where they say the same.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from countersign.core.jwt_rule import JwtRule
from countersign.policy.analysis.analyze_rules import requires_token
from countersign.policy.analysis.notes import Notes
from countersign.policy.analysis.surroundings import Neighbours, Surroundings
from countersign.policy.problems import Code
from countersign.policy.resources import (
    AuthorizationPolicy,
    Meta,
    PeerAuthentication,
    RequestAuthentication,
    Resources,
)
from countersign.policy.workload import WAYPOINT_CLASS

_Resource = PeerAuthentication | RequestAuthentication | AuthorizationPolicy
_REQUIRE: Final = 'an ALLOW rule with `requestPrincipals`, or a DENY rule with `notRequestPrincipals: ["*"]`'


def check_scopes(resources: Resources, surroundings: Surroundings, notes: Notes) -> None:
    """Look at all resources together; only sound if they are all of the mesh's."""
    _check_workloads(resources, surroundings, notes)
    _check_peers(resources.peer_authentications, surroundings, notes)
    _check_issuers(resources.request_authentications, surroundings, notes)
    attachable: tuple[_Resource, ...] = (*resources.request_authentications, *resources.authorization_policies)
    for each in attachable:
        _check_targets(each, surroundings, notes)
    requiring = [each for each in resources.authorization_policies if not each.dry_run and requires_token(each)]
    policies = Neighbours(requiring, lambda each: each.meta, surroundings)
    for resource in resources.request_authentications:
        _check_tokens_are_required(resource, policies, notes)


def is_ignored(peer: PeerAuthentication, surroundings: Surroundings) -> bool:
    """Whether Istio passes over it: a selector means nothing in the root namespace."""
    return bool(peer.meta.selector) and peer.meta.namespace == surroundings.root_namespace


def _check_targets(resource: _Resource, surroundings: Surroundings, notes: Notes) -> None:
    if _is_for_no_class(resource.meta, surroundings):
        message = (
            f"{_named(resource)} applies to nothing: as a GatewayClass only `{WAYPOINT_CLASS}` is a target, "
            f"and only in the root namespace, `{surroundings.root_namespace}`"
        )
        write = "target a Gateway, Service or ServiceEntry of its own namespace"
        notes.warn(resource.meta.source, Code.INEFFECTIVE_POLICY, message, write)


def _is_for_no_class(meta: Meta, surroundings: Surroundings) -> bool:
    """Whether it names gateway classes alone, and none that counts."""
    if not meta.targets or any(target.kind != "GatewayClass" for target in meta.targets):
        return False
    in_root = meta.namespace == surroundings.root_namespace
    return not in_root or all(target.name != WAYPOINT_CLASS for target in meta.targets)


def _check_workloads(resources: Resources, surroundings: Surroundings, notes: Notes) -> None:
    """What none of the known workloads is under."""
    if not surroundings.workloads:
        return
    for peer in resources.peer_authentications:
        if not is_ignored(peer, surroundings) and not surroundings.selected(peer.meta):
            _warn_unknown(peer, surroundings, notes)
    attachable: tuple[_Resource, ...] = (*resources.request_authentications, *resources.authorization_policies)
    for resource in attachable:
        meta = resource.meta
        if not _is_for_no_class(meta, surroundings) and not surroundings.attached(meta):
            _warn_unknown(resource, surroundings, notes)


def _warn_unknown(resource: _Resource, surroundings: Surroundings, notes: Notes) -> None:
    meta = resource.meta
    if meta.targets:
        wanted = "none is or serves " + ", ".join(f"{target.kind} `{target.name}`" for target in meta.targets)
    else:
        where = "any namespace" if meta.namespace == surroundings.root_namespace else f"`{meta.namespace}`"
        labels = ", ".join(f"{name}={value}" for name, value in meta.selector.items()) or "any labels"
        wanted = f"none in {where} with {labels}"
    message = f"{_named(resource)} applies to no known workload: {wanted}"
    known = ", ".join(sorted(surroundings.workloads))
    notes.warn(meta.source, Code.NO_MATCHING_WORKLOAD, message, f"known here: {known}")


def _check_peers(peers: Sequence[PeerAuthentication], surroundings: Surroundings, notes: Notes) -> None:
    """Of several PeerAuthentications at one level one counts: for one selector, or for one known workload."""
    counted = [peer for peer in peers if not is_ignored(peer, surroundings)]
    levels: dict[tuple[str, ...], list[PeerAuthentication]] = defaultdict(list)
    for peer in counted:
        labels = sorted(f"{name}={value}" for name, value in peer.meta.selector.items())
        levels[peer.meta.namespace, *labels].append(peer)
        if labels:
            for name in surroundings.selected(peer.meta):
                levels["", name].append(peer)
    told: set[str] = set()
    for competing in levels.values():
        winner, *losers = sorted(competing, key=lambda peer: (peer.meta.created, peer.meta.name))
        for loser in losers:
            if loser.meta.source not in told:
                told.add(loser.meta.source)
                _warn_competing(winner, loser, notes)


def _warn_competing(winner: PeerAuthentication, loser: PeerAuthentication, notes: Notes) -> None:
    why = "the older" if winner.meta.created != loser.meta.created else "first by name"
    message = (
        f"{_named(loser)} is ignored where `{_name(winner.meta)}` ({winner.meta.source}) applies too: "
        f"of one level only one counts, {why}, and not even the other's ports are added"
    )
    notes.warn(loser.meta.source, Code.COMPETING_POLICIES, message, "merge them into one")


def _check_issuers(resources: Sequence[RequestAuthentication], surroundings: Surroundings, notes: Notes) -> None:
    by_issuer: dict[str, list[tuple[Meta, JwtRule]]] = defaultdict(list)
    for resource in resources:
        for rule in resource.rules:
            by_issuer[rule.issuer].append((resource.meta, rule))
    by_issuer.pop("", None)
    for rules in by_issuer.values():
        later = Neighbours(rules, lambda pair: pair[0], surroundings)
        for start, (meta, one) in enumerate(rules, 1):
            for _, other in later.of(meta, start):
                message = (
                    f"issuer `{other.issuer}` stands in `{one.policy}` ({one.source}) too: "
                    "a token passes if either rule takes it, so that the laxer one decides"
                )
                write = "one rule an issuer, with all of its audiences"
                notes.warn(other.source, Code.DUPLICATE_ISSUER, message, write, other.issuer)


def _check_tokens_are_required(
    resource: RequestAuthentication, requiring: Neighbours[AuthorizationPolicy], notes: Notes
) -> None:
    if not resource.rules or any(rule.required for rule in resource.rules):
        return
    if any(True for _ in requiring.of(resource.meta)):
        return
    message = (
        f"{_named(resource)} checks tokens that nobody has to send: "
        "a request without one passes, and no AuthorizationPolicy for the same workloads asks for one"
    )
    notes.warn(resource.meta.source, Code.TOKEN_NOT_REQUIRED, message, f"add {_REQUIRE}")


def _named(resource: _Resource) -> str:
    return f"{type(resource).__name__} `{_name(resource.meta)}`"


def _name(meta: Meta) -> str:
    return f"{meta.namespace}/{meta.name}"
