"""A judgement, however it came about, to its explanation: what applies, what stays concealed, what to know besides."""

from dataclasses import dataclass

from countersign.core.facts import RequestFacts
from countersign.core.jwt_rule import JwtRule
from countersign.explanation.conceal import Concealer
from countersign.explanation.form import Explanation
from countersign.explanation.remarks import Circumstances, no_user, remarks, request_line
from countersign.explanation.wording import Asked, explanation
from countersign.judgement import Judgement
from countersign.policy.resources import Meta, Resources
from countersign.snapshot import Snapshot
from countersign.tokens.bound import bindings
from countersign.tokens.jose import UnverifiedToken
from countersign.tokens.locate import header_locations


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A judgement and what it was about. ``facts`` is None for a request that could not be read.

    ``claims`` are those that were given in place of a token; ``notes`` go before all others.
    """

    judgement: Judgement
    facts: RequestFacts | None
    claims: UnverifiedToken | None = None
    signature_checked: bool = True
    notes: tuple[str, ...] = ()


def explained(judged: Judged, snapshot: Snapshot) -> Explanation:
    """Explain a judgement that was made with this snapshot."""
    facts, judgement, policies = judged.facts, judged.judgement, snapshot.policies
    applied = policies.for_workload(judgement.workload) if policies and judgement.workload else None
    resources = policies.resources if policies else Resources()
    known = Circumstances(
        facts=facts,
        claims=judged.claims,
        signature_checked=judged.signature_checked,
        jwt_rules=applied.jwt_rules if applied else (),
        posture=snapshot.mesh.posture,
        namespaces=frozenset(meta.namespace for meta in _metas(resources)),
    )
    asked = Asked(
        request=request_line(facts),
        tcp=facts is not None and facts.http is None,
        mtls=applied.mtls_on(facts.destination.port) if applied and facts else None,
        signature_checked=known.signature_checked,
        no_user=no_user(known),
        bindings=tuple(binding for _, binding in bindings(judgement.token, None, known.jwt_rules))
        if judgement.token
        else (),
        notes=(*judged.notes, *remarks(judgement, known)),
    )
    return explanation(judgement, asked, concealer(facts, snapshot))


def concealer(facts: RequestFacts | None, snapshot: Snapshot) -> Concealer:
    """What hides the credentials of a request, wherever these policies look for tokens."""
    rules = jwt_rules(snapshot.policies.resources) if snapshot.policies else ()
    return Concealer(facts, frozenset(place.name for rule in rules for place in header_locations(rule)))


def jwt_rules(resources: Resources) -> tuple[JwtRule, ...]:
    """The rules of every RequestAuthentication."""
    return tuple(rule for resource in resources.request_authentications for rule in resource.rules)


def _metas(resources: Resources) -> list[Meta]:
    kinds = (resources.peer_authentications, resources.request_authentications, resources.authorization_policies)
    return [resource.meta for kind in kinds for resource in kind]
