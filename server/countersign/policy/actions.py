"""Policies by what they do, and what is left of them on a connection without HTTP.

Source: Istio pilot/pkg/security/authz/builder; model ``checkError``: what cannot be asked shrinks an ALLOW and widens
everything else.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from countersign.policy.resources import Action, AuthorizationPolicy, Clause, Rule
from countersign.policy.terms.attributes import ATTRIBUTES


@dataclass(frozen=True, slots=True, kw_only=True)
class PoliciesByAction:
    """The policies of one workload, and how many rules they have. Those of a dry run are in ``tried`` only."""

    custom: tuple[AuthorizationPolicy, ...] = ()
    audit: tuple[AuthorizationPolicy, ...] = ()
    deny: tuple[AuthorizationPolicy, ...] = ()
    allow: tuple[AuthorizationPolicy, ...] = ()
    tried: tuple[AuthorizationPolicy, ...] = ()
    rules: int = field(init=False)

    def __post_init__(self) -> None:
        """Count the rules once: every denial asks."""
        groups = (self.custom, self.audit, self.deny, self.allow, self.tried)
        object.__setattr__(self, "rules", sum(len(policy.rules) for group in groups for policy in group))

    def as_if_enforced(self) -> "PoliciesByAction":
        """The same policies with the dry run over."""
        enforced = (replace(policy, dry_run=False) for policy in self.tried)
        return by_action((*self.custom, *self.audit, *self.deny, *self.allow, *enforced))


def by_action(policies: Iterable[AuthorizationPolicy]) -> PoliciesByAction:
    """Sort policies by action; order within an action is kept."""
    policies = tuple(policies)

    def those(action: Action) -> tuple[AuthorizationPolicy, ...]:
        return tuple(policy for policy in policies if policy.action is action and not policy.dry_run)

    return PoliciesByAction(
        custom=those(Action.CUSTOM),
        audit=those(Action.AUDIT),
        deny=those(Action.DENY),
        allow=those(Action.ALLOW),
        tried=tuple(policy for policy in policies if policy.dry_run),
    )


def on_tcp(policy: AuthorizationPolicy) -> AuthorizationPolicy:
    """The policy as a network filter enforces it.

    An ALLOW rule that asks for HTTP is gone. Of other rules only the HTTP terms are gone, so that a DENY rule with
    nothing else denies every connection.
    """
    if policy.action is Action.ALLOW:
        rules = tuple(rule for rule in policy.rules if not _asks_for_http(rule))
    else:
        rules = tuple(_without_http(rule) for rule in policy.rules)
    return replace(policy, rules=rules)


def _asks_for_http(rule: Rule) -> bool:
    clauses = (*rule.sources, *rule.operations, *rule.conditions)
    return any(ATTRIBUTES[term.attribute].http for clause in clauses for term in clause)


def _without_http(rule: Rule) -> Rule:
    return replace(
        rule,
        sources=tuple(map(_rest, rule.sources)),
        operations=tuple(map(_rest, rule.operations)),
        conditions=tuple(map(_rest, rule.conditions)),
    )


def _rest(clause: Clause) -> Clause:
    return tuple(term for term in clause if not ATTRIBUTES[term.attribute].http)
