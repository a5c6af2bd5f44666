"""AuthorizationPolicy: rules as terms over attributes.

Source: security.istio.io AuthorizationPolicy; ValidateAuthorizationPolicy in Istio's pkg/config/validation.
"""

from collections.abc import Mapping
from typing import Final

import yaml

from countersign.core.claims import claim_path
from countersign.policy.problems import Code, did_you_mean
from countersign.policy.reading.document import Report, is_null, read_fields, read_list, read_string, read_strings
from countersign.policy.resources import Action, AuthorizationPolicy, Clause, Meta, Rule, Term
from countersign.policy.terms.attributes import (
    ATTRIBUTES,
    CONDITION_KEYS,
    EXPERIMENTAL,
    IDENTITY_ATTRIBUTES,
    OPERATION_FIELDS,
    SOURCE_FIELDS,
)

_SPEC: Final = frozenset({"selector", "targetRef", "targetRefs", "action", "rules", "provider"})
_MAX_RULES: Final = 512
_MAX_SOURCES: Final = 512  # of one rule; operations have no limit in the schema
_MAX_SERVICE_ACCOUNTS: Final = 16  # of one field
_REMOVED_KEYS: Final = frozenset(
    {"destination.namespace", "destination.name", "destination.user", "destination.labels"}
)
_RULE: Final = frozenset({"from", "to", "when"})
_WHEN: Final = frozenset({"key", "values", "notValues"})


class _Grammar:
    """The fields of a ``source`` or an ``operation``, each with its `not...`, and their attributes: made once."""

    def __init__(self, member: str, positive: Mapping[str, str]) -> None:
        negated = {f"not{name[0].upper()}{name[1:]}": attribute for name, attribute in positive.items()}
        self.member = member
        self.members = frozenset({member})
        self.positive = positive
        self.attributes = {**positive, **negated}
        self.fields = frozenset(self.attributes)


_SOURCE: Final = _Grammar("source", SOURCE_FIELDS)
_OPERATION: Final = _Grammar("operation", OPERATION_FIELDS)


def parse_authorization_policy(
    meta: Meta, spec: yaml.Node | None, report: Report, *, dry_run: bool
) -> AuthorizationPolicy:
    """Read ``spec``; what is wrong goes to the report."""
    members = {} if spec is None or is_null(spec) else read_fields(spec, report, _SPEC, "spec")
    action = _action(members.get("action"), report)
    rules_node = members.get("rules")
    items = [] if rules_node is None or is_null(rules_node) else read_list(rules_node, report, "rules")
    if len(items) > _MAX_RULES:
        report.error(items[_MAX_RULES], Code.INVALID_VALUE, f"more than {_MAX_RULES} rules", "split the policy")
    where = rules_node or spec
    if action in {Action.DENY, Action.CUSTOM} and not items and where is not None:
        wrong = f"a {action} policy without rules denies nothing" if action is Action.DENY else "CUSTOM without rules"
        report.error(where, Code.INVALID_VALUE, wrong, "add a rule")
    if dry_run and action not in {Action.ALLOW, Action.DENY} and where is not None:
        report.error(where, Code.INVALID_VALUE, "only ALLOW and DENY policies have a dry run", "remove the annotation")
    policy = AuthorizationPolicy(
        meta=meta,
        action=action or Action.DENY,
        dry_run=dry_run,
        provider=_provider(members, action, report),
        rules=tuple(_rule(index, node, report) for index, node in enumerate(items)),
    )
    if action is Action.CUSTOM and where is not None:
        _check_custom(policy, where, report)
    return policy


def _provider(members: Mapping[str, yaml.Node], action: Action | None, report: Report) -> str:
    node = members.get("provider")
    if node is None or is_null(node):
        if action is Action.CUSTOM:
            where = members["action"]
            report.error(where, Code.MISSING_FIELD, "CUSTOM without `provider.name`", "name the extension provider")
        return ""
    name = read_fields(node, report, frozenset({"name"}), "provider").get("name")
    text = "" if name is None else read_string(name, report, "provider.name") or ""
    if action is not Action.CUSTOM:
        report.error(node, Code.INVALID_VALUE, f"`provider` with `action: {action or ''}`", "it is for CUSTOM only")
    elif not text:
        report.error(node, Code.MISSING_FIELD, "CUSTOM without `provider.name`", "name the extension provider")
    return text


def _check_custom(policy: AuthorizationPolicy, where: yaml.Node, report: Report) -> None:
    """CUSTOM is asked before anybody is authenticated; and here nobody can be asked."""
    for rule in policy.rules:
        for clause in (*rule.sources, *rule.conditions):
            for term in clause:
                if term.attribute in IDENTITY_ATTRIBUTES:
                    wrong = f"`{term.field}` in a CUSTOM policy, which runs before authentication"
                    report.error(where, Code.INVALID_VALUE, wrong, "ask for identities in an ALLOW or DENY policy")
    report.warning(
        where,
        Code.CUSTOM_DENIES,
        f"Countersign has no provider `{policy.provider}`: every request that this CUSTOM policy matches is denied",
        "Countersign is the external authorizer here: write ALLOW and DENY policies",
    )


def _action(node: yaml.Node | None, report: Report) -> Action | None:
    """The action; None if it is reported as none of ours."""
    if node is None or is_null(node):
        return Action.ALLOW
    text = read_string(node, report, "action")
    if text is not None and text not in Action.__members__:
        wrong = f"unknown action `{text}`"
        report.error(node, Code.INVALID_VALUE, wrong, did_you_mean(text, Action.__members__))
    return None if text is None or text not in Action.__members__ else Action(text)


def _rule(index: int, node: yaml.Node, report: Report) -> Rule:
    members = read_fields(node, report, _RULE, "rules")
    return Rule(
        index=index,
        sources=_clauses(members.get("from"), "from", _SOURCE, report),
        operations=_clauses(members.get("to"), "to", _OPERATION, report),
        conditions=_conditions(members.get("when"), report),
        source=report.source(node),
    )


def _clauses(node: yaml.Node | None, part: str, grammar: _Grammar, report: Report) -> tuple[Clause, ...]:
    if node is None:
        return ()
    items = read_list(node, report, part)
    if not items:
        report.error(node, Code.INVALID_VALUE, f"`{part}` is empty", "leave it out to match everything")
    if part == "from" and len(items) > _MAX_SOURCES:
        wrong = f"more than {_MAX_SOURCES} entries in `from`"
        report.error(items[_MAX_SOURCES], Code.INVALID_VALUE, wrong, "split the rule")
    clauses = []
    for item in items:
        members = read_fields(item, report, grammar.members, part)
        if is_null(members.get(grammar.member)):
            report.error(item, Code.MISSING_FIELD, f"`{part}` entry without `{grammar.member}`")
            continue
        clauses.append(_clause(members[grammar.member], grammar, report))
    return tuple(clauses)


def _clause(node: yaml.Node, grammar: _Grammar, report: Report) -> Clause:
    member, attributes = grammar.member, grammar.attributes
    members = read_fields(node, report, grammar.fields, member)
    terms = []
    for name, value in members.items():
        term = _term(value, name, attributes[name], (), report, negated=name not in grammar.positive)
        if term.attribute == "source.serviceAccount" and len(term.values) > _MAX_SERVICE_ACCOUNTS:
            wrong = f"more than {_MAX_SERVICE_ACCOUNTS} values in `{name}`"
            report.error(value, Code.INVALID_VALUE, wrong, "split the source")
        if term.values:
            terms.append(term)
    if isinstance(node, yaml.MappingNode) and all(_is_empty_list(value) for _, value in node.value):
        report.error(node, Code.INVALID_VALUE, f"`{member}` is empty", "name a field, or leave the entry out")
    fields_of_both = {attributes[name] for name in members} & {"source.principal", "source.namespace"}
    if fields_of_both and "source.serviceAccount" in {attributes[name] for name in members}:
        wrong = "`serviceAccounts` beside `principals` or `namespaces`"
        report.error(node, Code.INVALID_VALUE, wrong, "a service account says both: keep one of them")
    return tuple(terms)


def _is_empty_list(node: yaml.Node) -> bool:
    """Istio counts values, so that a source of ``principals: []`` alone is as empty as ``{}``."""
    return isinstance(node, yaml.SequenceNode) and not node.value


def _term(
    node: yaml.Node, name: str, attribute: str, argument: tuple[str, ...], report: Report, *, negated: bool
) -> Term:
    items = read_strings(node, report, name)
    if _is_empty_list(node):
        report.warning(node, Code.INVALID_VALUE, f"an empty `{name}` restricts nothing", "add a value or leave it out")
    check = ATTRIBUTES[attribute].check
    for text, item in items:
        if not text:
            report.error(item, Code.INVALID_VALUE, f"an empty string in `{name}`")
        elif wrong := check(text):
            report.error(item, Code.INVALID_VALUE, f"`{text}` in `{name}`: {wrong}")
    return Term(
        attribute=attribute,
        argument=argument,
        field=name,
        values=tuple(text for text, _ in items),
        negated=negated,
        source=report.source(node),
    )


def _conditions(node: yaml.Node | None, report: Report) -> tuple[Clause, ...]:
    if node is None:
        return ()
    clauses = (_condition(item, report) for item in read_list(node, report, "when"))
    return tuple(clause for clause in clauses if clause)


def _condition(node: yaml.Node, report: Report) -> Clause:
    members = read_fields(node, report, _WHEN, "when")
    if is_null(members.get("key")):
        report.error(node, Code.MISSING_FIELD, "`when` entry without `key`")
        return ()
    text = read_string(members["key"], report, "key")
    found = None if text is None else _key(text, members["key"], report)
    if found is None or text is None:
        return ()
    attribute, argument = found
    terms = [
        _term(members[name], text, attribute, argument, report, negated=name == "notValues")
        for name in ("values", "notValues")
        if not is_null(members.get(name))
    ]
    clause = tuple(term for term in terms if term.values)
    if not clause:
        report.error(node, Code.MISSING_FIELD, f"`when` entry for `{text}` with neither `values` nor `notValues`")
    return clause


def _key(text: str, node: yaml.Node, report: Report) -> tuple[str, tuple[str, ...]] | None:
    """The attribute and its bracketed argument of a `when` key."""
    name, bracket, rest = text.partition("[")
    if name.startswith(f"{EXPERIMENTAL}."):
        return _metadata_key(text, name, rest, node, report)
    if name not in CONDITION_KEYS or name == EXPERIMENTAL:
        _refuse_key(text, name, node, report)
        return None
    if not ATTRIBUTES[name].takes_argument:
        if bracket:
            report.error(node, Code.INVALID_VALUE, f"`{name}` takes no brackets")
        return name, ()
    if not bracket or not rest.endswith("]") or rest == "]":
        report.error(node, Code.INVALID_VALUE, f"`{text}` wants a name in brackets", f"{name}[name]")
        return None
    inner = rest[:-1]
    if name == "request.auth.claims" and "" in inner.split("]["):
        report.error(node, Code.INVALID_VALUE, f"`{text}` has an empty name", f"{name}[name][name]")
        return None
    return name, (_header_name(inner),) if name == "request.headers" else claim_path(inner)


def _metadata_key(
    text: str, name: str, rest: str, node: yaml.Node, report: Report
) -> tuple[str, tuple[str, ...]] | None:
    filter_name, key = name.removeprefix(f"{EXPERIMENTAL}."), rest.removesuffix("]")
    if not filter_name or not key or not rest.endswith("]"):
        wrong = f"`{text}` wants a filter and a key in brackets"
        report.error(node, Code.INVALID_VALUE, wrong, f"{EXPERIMENTAL}.http.my_filter[key]")
        return None
    return EXPERIMENTAL, (filter_name, key)


def _header_name(inner: str) -> str:
    """The name in lower case. Envoy's header map finds the authority under its old name too (header_map_impl.cc)."""
    name = inner.lower()
    return ":authority" if name == "host" else name


def _refuse_key(text: str, name: str, node: yaml.Node, report: Report) -> None:
    if name in _REMOVED_KEYS:
        report.error(node, Code.INVALID_VALUE, f"`{name}` is a key of the past", "pick workloads with `selector`")
    else:
        report.error(node, Code.INVALID_VALUE, f"unknown key `{text}`", did_you_mean(name, CONDITION_KEYS))
