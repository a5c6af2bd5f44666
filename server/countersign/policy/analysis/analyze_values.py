"""Every value of a rule, held against what is known of its attribute. A check for another attribute is a row here."""

from collections.abc import Mapping
from typing import Final

from countersign.policy.analysis import analyze_http, analyze_identity
from countersign.policy.analysis.findings import Check, Context, Finding, literal_asterisk, literal_asterisk_in_list
from countersign.policy.analysis.notes import Notes
from countersign.policy.resources import Action, Rule, Term

# Not here: `namespaces` (an inner `*` works), addresses, ports and service accounts (checked when they are parsed).
_CHECKS: Final[Mapping[str, tuple[Check, ...]]] = {
    "source.principal": (literal_asterisk, analyze_identity.spiffe_scheme, analyze_identity.principal),
    "source.trustDomain": (analyze_identity.trust_domain,),
    "request.auth.principal": (analyze_identity.request_principal,),
    "request.auth.audiences": (literal_asterisk,),
    "request.auth.presenter": (literal_asterisk,),
    "request.auth.claims": (literal_asterisk, analyze_identity.claim),
    "request.headers": (literal_asterisk,),
    "connection.sni": (literal_asterisk,),
    "experimental.envoy.filters": (literal_asterisk_in_list,),
    "operation.host": (literal_asterisk, analyze_http.host),
    "operation.method": (literal_asterisk, analyze_http.method),
    "operation.path": (analyze_http.path,),
}
# What comes of a value that does not match what it means, by action and `not...`.
_HARM: Final[Mapping[tuple[Action, bool], str]] = {
    (Action.ALLOW, False): "requests that should pass are denied",
    (Action.ALLOW, True): "requests that should be kept out pass",
    (Action.DENY, False): "requests that should be denied pass",
    (Action.DENY, True): "requests that should pass are denied",
}
_OTHER_HARM: Final = "the rule does not match what it means"


def check_values(rule: Rule, context: Context, notes: Notes) -> None:
    """Look at every value; of several things wrong with one the first is told."""
    for clause in (*rule.sources, *rule.operations, *rule.conditions):
        for term in clause:
            for value in term.values:
                found = _first(term, value, context)
                if found is not None:
                    harm = _HARM.get((context.action, term.negated), _OTHER_HARM)
                    message = f"`{value}` in `{term.field}` {found.what}: {harm}"
                    notes.warn(term.source, found.code, message, found.write, value)


def _first(term: Term, value: str, context: Context) -> Finding | None:
    for check in _CHECKS.get(term.attribute, ()):
        found = check(term, value, context)
        if found is not None:
            return found
    return None
