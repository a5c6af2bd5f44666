"""Rules that let in more, or shut out more, than they seem to.

Source: Istio pilot/pkg/security/authz/model (a `not...` field is a plain negation, so what is absent passes it; on TCP
a DENY rule loses its HTTP fields and grows); istio/istio issues 24845, 29710 and 41802.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from countersign.policy.analysis.notes import Notes
from countersign.policy.problems import Code
from countersign.policy.resources import Action, AuthorizationPolicy, Clause, Rule, Term

_PEER: Final = frozenset({"source.principal", "source.namespace", "source.serviceAccount", "source.trustDomain"})
_TOKEN: Final = frozenset(
    {"request.auth.principal", "request.auth.claims", "request.auth.audiences", "request.auth.presenter"}
)
_OPTIONAL: Final[Mapping[str, str]] = {
    "request.headers": "the header",
    "connection.sni": "a server name",
    "experimental.envoy.filters": "the metadata",
}


def check_rule(policy: AuthorizationPolicy, rule: Rule, root_namespace: str, notes: Notes) -> None:
    """Look at one rule as a whole."""
    if policy.action is Action.ALLOW:
        _admits_anonymous(rule, notes)
        if policy.meta.namespace == root_namespace:
            _allows_everything(policy, rule, notes)
    elif policy.action is Action.DENY:
        _closes_tcp(policy, rule, notes)


def requires_token(policy: AuthorizationPolicy) -> bool:
    """Whether some request is refused for want of a token: an ALLOW asks for one, or a DENY for none."""
    if policy.action not in (Action.ALLOW, Action.DENY):
        return False
    wanted = policy.action is Action.DENY
    return any(
        term.attribute in _TOKEN and term.negated is wanted
        for rule in policy.rules
        for clause in (*rule.sources, *rule.conditions)
        for term in clause
    )


def _admits_anonymous(rule: Rule, notes: Notes) -> None:
    """Once for each `not...` term for which some way to fulfil the rule asks nothing that must be there."""
    for terms in _alternatives(rule):
        for term in terms:
            if term.negated and (lacking := _lacking(term)) and not any(_requires(other, term) for other in terms):
                _warn_anonymous(term, lacking, notes)


def _alternatives(rule: Rule) -> Iterator[tuple[Term, ...]]:
    """Each source with all conditions: what has to hold together."""
    conditions = tuple(term for clause in rule.conditions for term in clause)
    for source in rule.sources or ((),):
        yield (*source, *conditions)


def _lacking(term: Term) -> str:
    """What a request that passes the term may be without; empty if it always has it."""
    if term.attribute in _PEER:
        return "a certificate"
    if term.attribute in _TOKEN:
        return "a token"
    if term.values == ("*",) or (term.attribute == "request.headers" and term.argument[0].startswith(":")):
        return ""  # `notValues: ["*"]` asks for its absence, plainly
    return _OPTIONAL.get(term.attribute, "")


def _requires(other: Term, term: Term) -> bool:
    """Whether another term holds only where the attribute is there."""
    if other.negated:
        return False
    if term.attribute in _PEER:
        return other.attribute in _PEER
    if term.attribute in _TOKEN:
        return other.attribute in _TOKEN
    return (other.attribute, other.argument) == (term.attribute, term.argument)


def _warn_anonymous(term: Term, lacking: str, notes: Notes) -> None:
    name = term.field if term.field.startswith("not") else f"{term.field}` notValues `{', '.join(term.values)}"
    if term.values == ("*",):
        message = f"`{name}` in an ALLOW rule lets in only callers without {lacking}"
        write = "to require it ask for `*` without the `not`; to refuse those without, move it to a DENY rule"
    else:
        message = f"`{name}` in an ALLOW rule lets in callers without {lacking}: what is absent is none of the values"
        write = f"require it as well: {_requirement(term)}"
    notes.warn(term.source, Code.ADMITS_ANONYMOUS, message, write, term.values[0])


def _requirement(term: Term) -> str:
    if not term.field.startswith("not"):
        key = "source.principal" if term.attribute in _PEER else "request.auth.principal"
        key = key if term.attribute in _PEER | _TOKEN else term.field
        return f'`when: [{{key: {key}, values: ["*"]}}]`'
    if term.attribute == "source.serviceAccount":  # Istio takes no principals beside service accounts
        return '`when: [{key: source.principal, values: ["*"]}]`'
    return f'`{"principals" if term.attribute in _PEER else "requestPrincipals"}: ["*"]` in the same source'


def _allows_everything(policy: AuthorizationPolicy, rule: Rule, notes: Notes) -> None:
    meta = policy.meta
    if rule.sources or rule.operations or rule.conditions or meta.selector or meta.targets:
        return
    notes.warn(
        rule.source,
        Code.ALLOWS_EVERYTHING,
        f"an empty ALLOW rule in the root namespace `{meta.namespace}` allows every request to every workload: "
        "ALLOW policies add up, so that no other one restricts anything any more",
        "leave the policy out, or let it select the workloads that are open to all",
    )


def _closes_tcp(policy: AuthorizationPolicy, rule: Rule, notes: Notes) -> None:
    """On a TCP connection HTTP fields fall away, so a clause of nothing else holds for every connection."""
    terms = [term for clause in (*rule.sources, *rule.operations, *rule.conditions) for term in clause]
    open_conditions = all(map(_http_only, rule.conditions))
    if not terms or not open_conditions or not _any_open(rule.sources) or not _any_open(rule.operations):
        return
    notes.warn(
        rule.source,
        Code.HTTP_ONLY_DENY,
        f"rule {rule.index} of DENY policy `{policy.meta.namespace}/{policy.meta.name}` has only HTTP fields: "
        "on TCP ports they fall away, and every connection is denied",
        "name the HTTP ports in each `operation`: `ports`",
    )


def _any_open(clauses: tuple[Clause, ...]) -> bool:
    return not clauses or any(map(_http_only, clauses))


def _http_only(clause: Clause) -> bool:
    return all(term.attribute.startswith(("operation.", "request.")) for term in clause)
