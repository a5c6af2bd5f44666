"""AuthorizationPolicy: rules as terms over attributes."""

from enum import StrEnum
from typing import Final

import pytest
from countersign.policy.parse import parse
from countersign.policy.problems import Code, PolicyError, Problem, Severity
from countersign.policy.resources import Action, AuthorizationPolicy, Rule, Term
from countersign.policy.terms.attributes import OPERATION_FIELDS, SOURCE_FIELDS

from tests.support import vectors
from tests.support.requests import authorization, load

# A value that each attribute takes.
SAMPLES: Final = {
    "source.ip": "10.0.0.0/8",
    "remote.ip": "::1",
    "destination.ip": "10.0.0.1",
    "destination.port": "8080",
}
KEYS: Final = (
    "source.ip",
    "remote.ip",
    "source.namespace",
    "source.serviceAccount",
    "source.trustDomain",
    "source.principal",
    "request.auth.principal",
    "request.auth.audiences",
    "request.auth.presenter",
    "request.auth.claims[a]",
    "request.headers[x-a]",
    "destination.ip",
    "destination.port",
    "connection.sni",
    "experimental.envoy.filters.http.lua[k]",
)


def _negated(name: str) -> str:
    return f"not{name[0].upper()}{name[1:]}"


def _policy(spec: str) -> AuthorizationPolicy:
    (resource,) = load(authorization(spec)).authorization_policies
    return resource


def _rule(rule: str) -> Rule:
    (found,) = _policy(f"{{rules: [{rule}]}}").rules
    return found


def _term(clause: str) -> Term:
    ((term,),) = _rule(f"{{when: [{clause}]}}").conditions
    return term


def _problems(spec: str) -> list[Problem]:
    with pytest.raises(PolicyError) as error:
        parse({"f": authorization(spec)}, None, lambda _: "")
    return list(error.value.problems)


def _refused(spec: str) -> list[tuple[StrEnum, str, str]]:
    return [(problem.code, problem.message, problem.help) for problem in _problems(spec)]


def _refused_rule(rule: str) -> list[tuple[StrEnum, str, str]]:
    return _refused(f"{{rules: [{rule}]}}")


# --- the policy -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "action"),
    [
        ("{}", Action.ALLOW),
        ("{action: null}", Action.ALLOW),
        ("{action: ALLOW}", Action.ALLOW),
        ("{action: DENY, rules: [{}]}", Action.DENY),
    ],
)
def test_an_action_is_allow_unless_it_says_otherwise(spec: str, action: Action) -> None:
    assert _policy(spec).action is action


@pytest.mark.parametrize("spec", ["null", "{}", "{rules: null}", "{rules: []}", "{action: ALLOW}"])
def test_an_allow_policy_may_go_without_rules(spec: str) -> None:
    assert _policy(spec).rules == ()


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("{action: DENY}", (Code.INVALID_VALUE, "a DENY policy without rules denies nothing", "add a rule")),
        ("{action: DENY, rules: []}", (Code.INVALID_VALUE, "a DENY policy without rules denies nothing", "add a rule")),
        (
            "{action: DENY, rules: null}",
            (Code.INVALID_VALUE, "a DENY policy without rules denies nothing", "add a rule"),
        ),
        ("{action: DENIED}", (Code.INVALID_VALUE, "unknown action `DENIED`", "did you mean `DENY`?")),
        ("{action: allow}", (Code.INVALID_VALUE, "unknown action `allow`", "known here: ALLOW, AUDIT, CUSTOM, DENY")),
        ("{action: 1}", (Code.WRONG_TYPE, "`action` wants a string, found a number", 'quote it: "1"')),
        (
            "{provider: {name: a}}",
            (Code.INVALID_VALUE, "`provider` with `action: ALLOW`", "it is for CUSTOM only"),
        ),
        ("{rules: {}}", (Code.WRONG_TYPE, "`rules` wants a list, found an object", "")),
        ("{rules: [null]}", (Code.WRONG_TYPE, "`rules` wants an object, found null", "")),
        ("{rule: []}", (Code.UNKNOWN_FIELD, "unknown field `rule` in `spec`", "did you mean `rules`?")),
    ],
)
def test_a_mistake_in_the_spec_is_named_with_a_way_out(spec: str, expected: tuple[StrEnum, str, str]) -> None:
    assert _refused(spec) == [expected]


def test_five_hundred_and_twelve_rules_are_istios_most() -> None:
    assert len(_policy(f"{{rules: [{', '.join(['{}'] * 512)}]}}").rules) == 512
    assert _refused(f"{{rules: [{', '.join(['{}'] * 513)}]}}") == [
        (Code.INVALID_VALUE, "more than 512 rules", "split the policy")
    ]


def test_rules_are_numbered_and_placed() -> None:
    policy = _policy("\n  rules:\n  - {}\n  -\n    to: [{operation: {paths: [/a]}}]")

    assert [(rule.index, rule.source) for rule in policy.rules] == [(0, "policy.yaml:6"), (1, "policy.yaml:8")]
    assert [policy.rule_id(rule) for rule in policy.rules] == [
        "ns[apps]-policy[rule]-rule[0]",
        "ns[apps]-policy[rule]-rule[1]",
    ]


def test_a_rule_of_nothing_has_no_part() -> None:
    rule = _rule("{}")

    assert (rule.sources, rule.operations, rule.conditions) == ((), (), ())


# --- CUSTOM, AUDIT ----------------------------------------------------------------------------------------------------

NO_PROVIDER: Final = (Code.MISSING_FIELD, "CUSTOM without `provider.name`", "name the extension provider")


def test_an_audit_policy_may_go_without_rules() -> None:
    assert _policy("{action: AUDIT}").action is Action.AUDIT
    assert len(_policy("{action: AUDIT, rules: [{}]}").rules) == 1


def test_a_custom_policy_loads_with_a_warning_that_it_denies() -> None:
    loaded = parse({"f": authorization("{action: CUSTOM, provider: {name: opa}, rules: [{}]}")}, None, lambda _: "")

    (policy,) = loaded.resources.authorization_policies
    assert (policy.action, policy.provider, len(policy.rules)) == (Action.CUSTOM, "opa", 1)
    (warning,) = loaded.warnings
    assert (warning.severity, warning.code) == (Severity.WARNING, Code.CUSTOM_DENIES)
    assert str(warning.code) == "CS0009"
    assert warning.message == (
        "Countersign has no provider `opa`: every request that this CUSTOM policy matches is denied"
    )
    assert warning.help == "Countersign is the external authorizer here: write ALLOW and DENY policies"


@pytest.mark.parametrize("rules", ["", ", rules: []", ", rules: null"])
def test_a_custom_policy_has_rules(rules: str) -> None:
    assert (Code.INVALID_VALUE, "CUSTOM without rules", "add a rule") in _refused(
        f"{{action: CUSTOM, provider: {{name: p}}{rules}}}"
    )


@pytest.mark.parametrize("provider", ["", "provider: null, ", "provider: {}, ", "provider: {name: ''}, "])
def test_a_custom_policy_names_its_provider(provider: str) -> None:
    assert NO_PROVIDER in _refused(f"{{action: CUSTOM, {provider}rules: [{{}}]}}")


@pytest.mark.parametrize(
    ("provider", "code"),
    [("x", Code.WRONG_TYPE), ("{name: 5}", Code.WRONG_TYPE), ("{name: p, port: 1}", Code.UNKNOWN_FIELD)],
)
def test_a_provider_is_a_name_and_nothing_else(provider: str, code: Code) -> None:
    assert code in [row[0] for row in _refused(f"{{action: CUSTOM, provider: {provider}, rules: [{{}}]}}")]


@pytest.mark.parametrize("provider", ["", "provider: null"])
def test_other_policies_have_no_provider(provider: str) -> None:
    assert _policy(f"{{{provider}}}").provider == ""


@pytest.mark.parametrize("action", ["ALLOW", "DENY", "AUDIT"])
def test_a_provider_is_for_custom_alone(action: str) -> None:
    refused = _refused(f"{{action: {action}, provider: {{name: p}}, rules: [{{}}]}}")

    assert refused == [(Code.INVALID_VALUE, f"`provider` with `action: {action}`", "it is for CUSTOM only")]
    assert _policy(f"{{action: {action}, provider: null, rules: [{{}}]}}").provider == ""


IDENTITY: Final = [
    *(f"from: [{{source: {{{name}: [a]}}}}]" for name in SOURCE_FIELDS if not name.endswith("pBlocks")),
    *(f"from: [{{source: {{{_negated(name)}: [a]}}}}]" for name in SOURCE_FIELDS if not name.endswith("pBlocks")),
    *(
        f"when: [{{key: '{key}', values: [a]}}]"
        for key in KEYS
        if key.startswith(("source.", "request.auth.")) and key != "source.ip"
    ),
]


@pytest.mark.parametrize("part", IDENTITY)
def test_a_custom_policy_cannot_ask_who_somebody_is(part: str) -> None:
    """It runs before authentication."""
    found = _refused(f"{{action: CUSTOM, provider: {{name: p}}, rules: [{{{part}}}]}}")
    errors = [row for row in found if row[0] is not Code.CUSTOM_DENIES]

    (error,) = errors
    assert error[0] is Code.INVALID_VALUE
    assert error[1].endswith("in a CUSTOM policy, which runs before authentication")
    assert _policy(f"{{action: DENY, rules: [{{{part}}}]}}").rules


@pytest.mark.parametrize(
    "part",
    [
        "from: [{source: {ipBlocks: [10.0.0.1], notRemoteIpBlocks: [10.0.0.1]}}]",
        "to: [{operation: {hosts: [a], methods: [GET], paths: [/a], notPorts: ['80']}}]",
        "when: [{key: source.ip, values: [10.0.0.1]}, {key: remote.ip, values: [10.0.0.1]}]",
        "when: [{key: 'request.headers[a]', values: [a]}, {key: connection.sni, values: [a]}]",
        "when: [{key: destination.ip, values: [10.0.0.1]}, {key: 'experimental.envoy.filters.a[b]', values: [a]}]",
    ],
)
def test_a_custom_policy_can_ask_everything_else(part: str) -> None:
    assert _policy(f"{{action: CUSTOM, provider: {{name: p}}, rules: [{{{part}}}]}}").rules


# --- sources and operations -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("negated", [False, True])
@pytest.mark.parametrize(("name", "key"), sorted({**SOURCE_FIELDS, **OPERATION_FIELDS}.items()))
def test_every_field_is_read_as_the_attribute_of_its_meaning(name: str, key: str, *, negated: bool) -> None:
    part, member = ("from", "source") if name in SOURCE_FIELDS else ("to", "operation")
    field, value = (_negated(name) if negated else name), SAMPLES.get(key, "a")

    rule = _rule(f"{{{part}: [{{{member}: {{{field}: ['{value}', '{value}']}}}}]}}")

    ((term,),) = rule.sources if part == "from" else rule.operations
    assert term == Term(
        attribute=key,
        field=field,
        values=(value, value),
        negated=negated,
        source="policy.yaml:4",
    )


def test_fields_of_a_clause_are_terms_and_clauses_stay_apart() -> None:
    rule = _rule(
        "{from: [{source: {principals: [a], notNamespaces: [b]}}, {source: {ipBlocks: [10.0.0.1]}}],"
        " to: [{operation: {methods: [GET], paths: [/a], ports: ['80'], hosts: [h]}}]}"
    )

    assert [[term.field for term in clause] for clause in rule.sources] == [
        ["principals", "notNamespaces"],
        ["ipBlocks"],
    ]
    assert [[term.field for term in clause] for clause in rule.operations] == [["methods", "paths", "ports", "hosts"]]


@pytest.mark.parametrize("part", ["from", "to"])
@pytest.mark.parametrize(
    ("value", "code", "message"),
    [
        ("null", Code.WRONG_TYPE, "`{part}` wants a list, found null"),
        ("{}", Code.WRONG_TYPE, "`{part}` wants a list, found an object"),
        ("[]", Code.INVALID_VALUE, "`{part}` is empty"),
        ("[null]", Code.WRONG_TYPE, "`{part}` wants an object, found null"),
        ("[{{}}]", Code.MISSING_FIELD, "`{part}` entry without `{member}`"),
        ("[{{{member}: null}}]", Code.MISSING_FIELD, "`{part}` entry without `{member}`"),
        ("[{{{member}: {{}}}}]", Code.INVALID_VALUE, "`{member}` is empty"),
        ("[{{{member}: []}}]", Code.WRONG_TYPE, "`{member}` wants an object, found a list"),
        ("[{{{member}s: {{}}}}]", Code.UNKNOWN_FIELD, "unknown field `{member}s` in `{part}`"),
    ],
)
def test_a_part_that_would_match_everything_by_mistake_is_an_error(
    part: str, value: str, code: Code, message: str
) -> None:
    names = {"part": part, "member": {"from": "source", "to": "operation"}[part]}

    assert (code, message.format(**names)) in [
        row[:2] for row in _refused_rule(f"{{{part}: {value.format(**names) if '{{' in value else value}}}")
    ]


@pytest.mark.parametrize("clause", ["principals: []", "notPrincipals: []", "principals: [], namespaces: []"])
def test_a_clause_of_empty_lists_alone_is_an_error_as_it_would_match_everything(clause: str) -> None:
    errors = [
        row for row in _problems(f"{{rules: [{{from: [{{source: {{{clause}}}}}]}}]}}") if row.severity is Severity.ERROR
    ]

    assert [(row.code, row.message) for row in errors] == [(Code.INVALID_VALUE, "`source` is empty")]


def test_an_empty_list_beside_a_field_restricts_nothing_and_is_warned_of() -> None:
    loaded = parse(
        {"f": authorization("{rules: [{from: [{source: {principals: [], namespaces: [a]}}]}]}")}, None, lambda _: ""
    )

    (policy,) = loaded.resources.authorization_policies
    assert [term.field for term in policy.rules[0].sources[0]] == ["namespaces"]
    assert [warning.message for warning in loaded.warnings] == ["an empty `principals` restricts nothing"]


@pytest.mark.parametrize(
    ("part", "member", "name"),
    [("from", "source", name) for name in SOURCE_FIELDS] + [("to", "operation", name) for name in OPERATION_FIELDS],
)
@pytest.mark.parametrize(
    ("values", "code"),
    [
        ("['']", Code.INVALID_VALUE),
        ("[5]", Code.WRONG_TYPE),
        ("x", Code.WRONG_TYPE),
        ("[[a]]", Code.WRONG_TYPE),
        ("null", Code.WRONG_TYPE),
    ],
)
def test_values_are_texts_that_are_not_empty(part: str, member: str, name: str, values: str, code: Code) -> None:
    for field in (name, _negated(name)):
        assert [row[0] for row in _refused_rule(f"{{{part}: [{{{member}: {{{field}: {values}}}}}]}}")] == [code]


@pytest.mark.parametrize(
    ("clause", "message", "advice"),
    [
        ("from: [{source: {princpals: [a]}}]", "unknown field `princpals` in `source`", "did you mean `principals`?"),
        ("from: [{source: {paths: [a]}}]", "unknown field `paths` in `source`", None),
        ("to: [{operation: {path: [a]}}]", "unknown field `path` in `operation`", "did you mean `paths`?"),
        ("to: [{operation: {not_paths: [a]}}]", "unknown field `not_paths` in `operation`", "did you mean `notPaths`?"),
        ("to: [{operation: {principals: [a]}}]", "unknown field `principals` in `operation`", None),
        ("form: []", "unknown field `form` in `rules`", "did you mean `from`?"),
        (
            "when: [{key: source.ip, values: [10.0.0.1], value: [a]}]",
            "unknown field `value` in `when`",
            "did you mean `values`?",
        ),
    ],
)
def test_a_misspelt_field_is_an_error_with_its_neighbour(clause: str, message: str, advice: str | None) -> None:
    found = _refused_rule(f"{{{clause}}}")[0]

    assert found[:2] == (Code.UNKNOWN_FIELD, message)
    if advice is not None:
        assert found[2] == advice


# --- values that are checked ------------------------------------------------------------------------------------------

NETWORKS: Final = ("ipBlocks", "notIpBlocks", "remoteIpBlocks", "notRemoteIpBlocks")


@pytest.mark.parametrize(
    "value",
    ["10.0.0.1", "10.0.0.0/8", "10.1.2.3/8", "0.0.0.0/0", "::1", "2001:db8::/32", "::ffff:10.0.0.0/104", "::/0"],
)
@pytest.mark.parametrize("field", NETWORKS)
def test_an_address_or_a_block_is_taken(field: str, value: str) -> None:
    assert _rule(f"{{from: [{{source: {{{field}: ['{value}']}}}}]}}").sources[0][0].values == (value,)


@pytest.mark.parametrize(
    "value",
    [
        "a",
        "10.0.0",
        "10.0.0.256",
        "010.0.0.1",
        "10.0.0.0/33",
        "10.0.0.0/",
        "10.0.0.0/08",
        "10.0.0.0/-1",
        "10.0.0.0/8/8",
        "10.0.0.0/255.0.0.0",
        "10.0.0.0/0.255.255.255",
        " 10.0.0.1",
        "10.0.0.1:80",
        "10.0.*",
        "::g",
        "::/129",
        "fe80::1%eth0",
        "fe80::%1/64",
        "[::1]",
        "\\u0661.1.1.1",
    ],
)
@pytest.mark.parametrize("field", NETWORKS)
def test_what_is_no_block_is_an_error(field: str, value: str) -> None:
    found = _refused_rule(f'{{from: [{{source: {{{field}: ["{value}"]}}}}]}}')

    assert [row[0] for row in found] == [Code.INVALID_VALUE]
    assert found[0][1].endswith(f"in `{field}`: not an IP address or CIDR block")


@pytest.mark.parametrize(
    ("value", "sound"),
    [("0", True), ("80", True), ("080", True), ("65535", True)]
    + [
        (value, False)
        for value in ("65536", "0000065536", "000080", "-1", "x", "8 0", "80 ", "1e3", "\\u0661", "*", "8*", "9" * 5000)
    ],
)
@pytest.mark.parametrize("field", ["ports", "notPorts"])
def test_a_port_is_decimal_and_of_sixteen_bits(field: str, value: str, *, sound: bool) -> None:
    rule = f'{{to: [{{operation: {{{field}: ["{value}"]}}}}]}}'

    if sound:
        assert _rule(rule).operations[0][0].values == (value,)
    else:
        assert [row[0] for row in _refused_rule(rule)] == [Code.INVALID_VALUE]


@pytest.mark.parametrize(
    ("value", "wrong"),
    [
        ("a", ""),
        ("a/b", ""),
        ("a/" + "b" * 318, ""),
        ("a/" + "b" * 319, "longer than 320 characters"),
        ("a/b/c", "wants `namespace/name` or `name`"),
        ("/b", "wants `namespace/name` or `name`"),
        ("a/", "wants `namespace/name` or `name`"),
        ("/", "wants `namespace/name` or `name`"),
        ("*", "a service account has no wildcards"),
        ("a/*", "a service account has no wildcards"),
        ("a/b*", "a service account has no wildcards"),
    ],
)
def test_a_service_account_is_a_name_perhaps_with_its_namespace(value: str, wrong: str) -> None:
    for field in ("serviceAccounts", "notServiceAccounts"):
        rule = f"{{from: [{{source: {{{field}: ['{value}']}}}}]}}"
        if wrong:
            assert _refused_rule(rule) == [(Code.INVALID_VALUE, f"`{value}` in `{field}`: {wrong}", "")]
        else:
            assert _rule(rule).sources[0][0].values == (value,)


@pytest.mark.parametrize("field", ["serviceAccounts", "notServiceAccounts"])
def test_sixteen_service_accounts_are_istios_most(field: str) -> None:
    def rule(count: int) -> str:
        return f"{{from: [{{source: {{{field}: [{', '.join(['a'] * count)}]}}}}]}}"

    assert len(_rule(rule(16)).sources[0][0].values) == 16
    assert _refused_rule(rule(17)) == [(Code.INVALID_VALUE, f"more than 16 values in `{field}`", "split the source")]
    condition = f"{{when: [{{key: source.serviceAccount, values: [{', '.join(['a'] * 17)}]}}]}}"
    assert _rule(condition).conditions  # the limit is the schema's, which does not know keys


@pytest.mark.parametrize("other", ["principals", "notPrincipals", "namespaces", "notNamespaces"])
@pytest.mark.parametrize("field", ["serviceAccounts", "notServiceAccounts"])
def test_service_accounts_stand_without_principals_and_namespaces(field: str, other: str) -> None:
    beside = (
        Code.INVALID_VALUE,
        "`serviceAccounts` beside `principals` or `namespaces`",
        "a service account says both: keep one of them",
    )

    assert _refused_rule(f"{{from: [{{source: {{{field}: [a], {other}: [b]}}}}]}}") == [beside]
    assert _rule(f"{{from: [{{source: {{{field}: [a]}}}}, {{source: {{{other}: [b]}}}}]}}").sources
    assert _rule(f"{{from: [{{source: {{{field}: [a], requestPrincipals: [b], trustDomains: [c]}}}}]}}").sources


@pytest.mark.parametrize(
    ("value", "wrong"),
    [
        ("a", ""),
        ("a*", ""),
        ("*a", ""),
        ("*", ""),
        ("a/b", "a trust domain has no slash"),
        ("spiffe://a", "a trust domain has no slash"),
        ("a*b", "at most one `*`, first or last"),
        ("*a*", "at most one `*`, first or last"),
        ("**", "at most one `*`, first or last"),
        ("*a*b", "at most one `*`, first or last"),
    ],
)
def test_a_trust_domain_has_one_asterisk_at_an_end(value: str, wrong: str) -> None:
    for field in ("trustDomains", "notTrustDomains"):
        rule = f"{{from: [{{source: {{{field}: ['{value}']}}}}]}}"
        if wrong:
            assert _refused_rule(rule) == [(Code.INVALID_VALUE, f"`{value}` in `{field}`: {wrong}", "")]
        else:
            assert _rule(rule).sources[0][0].values == (value,)
    condition = f"{{when: [{{key: source.trustDomain, values: ['{value}']}}]}}"
    if wrong:
        assert _refused_rule(condition) == [(Code.INVALID_VALUE, f"`{value}` in `source.trustDomain`: {wrong}", "")]
    else:
        assert _rule(condition).conditions[0][0].values == (value,)


def test_five_hundred_and_twelve_sources_are_istios_most() -> None:
    source = "{source: {namespaces: [a]}}"

    assert len(_rule(f"{{from: [{', '.join([source] * 512)}]}}").sources) == 512
    assert _refused_rule(f"{{from: [{', '.join([source] * 513)}]}}") == [
        (Code.INVALID_VALUE, "more than 512 entries in `from`", "split the rule")
    ]
    operation = "{operation: {methods: [GET]}}"
    assert len(_rule(f"{{to: [{', '.join([operation] * 513)}]}}").operations) == 513


@pytest.mark.parametrize("value", ["/a/{b}", "/a/{", "/a/}", "/{}"])
def test_braces_that_are_no_template_are_an_error(value: str) -> None:
    assert [row[0] for row in _refused_rule(f"{{to: [{{operation: {{paths: ['{value}']}}}}]}}")] == [Code.INVALID_VALUE]


@pytest.mark.parametrize("value", ["/a*b", "*a*", "**", "a", "/a?b", "spiffe://x"])
def test_istio_checks_no_other_value_and_neither_do_we(value: str) -> None:
    assert _rule(f"{{to: [{{operation: {{paths: ['{value}']}}}}]}}").operations[0][0].values == (value,)


# --- when -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", KEYS)
def test_every_key_takes_values_and_not_values(key: str) -> None:
    value = SAMPLES.get(key, "a")

    ((yes, no),) = _rule(f"{{when: [{{key: '{key}', values: ['{value}'], notValues: ['{value}']}}]}}").conditions

    assert (yes.field, yes.values, yes.negated) == (key, (value,), False)
    assert (no.field, no.values, no.negated) == (key, (value,), True)


@pytest.mark.parametrize(
    ("key", "attribute", "argument"),
    [
        ("request.headers[X-Role]", "request.headers", ("x-role",)),
        ("request.headers[:Authority]", "request.headers", (":authority",)),
        ("request.headers[Host]", "request.headers", (":authority",)),
        ("experimental.envoy.filters.http.lua[k]", "experimental.envoy.filters", ("http.lua", "k")),
        ("experimental.envoy.filters.a[b][c]", "experimental.envoy.filters", ("a", "b][c")),
        ("experimental.envoy.filters.a[b]]", "experimental.envoy.filters", ("a", "b]")),
        ("request.auth.claims[Groups]", "request.auth.claims", ("Groups",)),
        ("request.auth.claims[a][b][c]", "request.auth.claims", ("a", "b", "c")),
        ("request.auth.claims[a.b/c:d]", "request.auth.claims", ("a.b/c:d",)),
        ("request.auth.claims[[a]]", "request.auth.claims", ("[a]",)),
        ("request.auth.claims[[a]", "request.auth.claims", ("[a",)),
        ("request.auth.claims[a]]", "request.auth.claims", ("a]",)),
        ("request.auth.claims[a][b[c]", "request.auth.claims", ("a][b[c",)),
        ("request.auth.claims[a]b][c]", "request.auth.claims", ("a]b][c",)),
        ("source.ip", "source.ip", ()),
    ],
)
def test_brackets_hold_a_header_or_a_path_of_claims(key: str, attribute: str, argument: tuple[str, ...]) -> None:
    term = _term(f"{{key: '{key}', values: ['10.0.0.1']}}")

    assert (term.attribute, term.argument) == (attribute, argument)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("{values: [a]}", (Code.MISSING_FIELD, "`when` entry without `key`", "")),
        ("{key: null, values: [a]}", (Code.MISSING_FIELD, "`when` entry without `key`", "")),
        ("{key: 5, values: [a]}", (Code.WRONG_TYPE, "`key` wants a string, found a number", 'quote it: "5"')),
        (
            "{key: source.ip}",
            (Code.MISSING_FIELD, "`when` entry for `source.ip` with neither `values` nor `notValues`", ""),
        ),
        (
            "{key: source.ip, values: null}",
            (Code.MISSING_FIELD, "`when` entry for `source.ip` with neither `values` nor `notValues`", ""),
        ),
        (
            "{key: 'request.headers', values: [a]}",
            (Code.INVALID_VALUE, "`request.headers` wants a name in brackets", "request.headers[name]"),
        ),
        (
            "{key: 'request.headers[]', values: [a]}",
            (Code.INVALID_VALUE, "`request.headers[]` wants a name in brackets", "request.headers[name]"),
        ),
        (
            "{key: 'request.headers[a', values: [a]}",
            (Code.INVALID_VALUE, "`request.headers[a` wants a name in brackets", "request.headers[name]"),
        ),
        (
            "{key: 'request.auth.claims[]', values: [a]}",
            (Code.INVALID_VALUE, "`request.auth.claims[]` wants a name in brackets", "request.auth.claims[name]"),
        ),
        (
            "{key: 'request.auth.claims[a][]', values: [a]}",
            (Code.INVALID_VALUE, "`request.auth.claims[a][]` has an empty name", "request.auth.claims[name][name]"),
        ),
        (
            "{key: 'request.auth.claims[][a]', values: [a]}",
            (Code.INVALID_VALUE, "`request.auth.claims[][a]` has an empty name", "request.auth.claims[name][name]"),
        ),
        (
            "{key: 'request.auth.claims[a]b', values: [a]}",
            (Code.INVALID_VALUE, "`request.auth.claims[a]b` wants a name in brackets", "request.auth.claims[name]"),
        ),
        ("{key: 'source.namespace[a]', values: [a]}", (Code.INVALID_VALUE, "`source.namespace` takes no brackets", "")),
        (
            "{key: source.user, values: [a]}",
            (Code.INVALID_VALUE, "unknown key `source.user`", "did you mean `source.ip`?"),
        ),
        (
            "{key: 'request.headersX[a]', values: [a]}",
            (Code.INVALID_VALUE, "unknown key `request.headersX[a]`", "did you mean `request.headers`?"),
        ),
        (
            "{key: 'request.auth.claimsX[a]', values: [a]}",
            (Code.INVALID_VALUE, "unknown key `request.auth.claimsX[a]`", "did you mean `request.auth.claims`?"),
        ),
        ("{key: '', values: [a]}", (Code.INVALID_VALUE, "unknown key ``", None)),
        ("{key: operation.path, values: [a]}", (Code.INVALID_VALUE, "unknown key `operation.path`", None)),
        (
            "{key: destination.namespace, values: [a]}",
            (Code.INVALID_VALUE, "`destination.namespace` is a key of the past", "pick workloads with `selector`"),
        ),
        (
            "{key: 'destination.labels[a]', values: [a]}",
            (Code.INVALID_VALUE, "`destination.labels` is a key of the past", "pick workloads with `selector`"),
        ),
        (
            "{key: source.ip, values: [a.b.c.d]}",
            (Code.INVALID_VALUE, "`a.b.c.d` in `source.ip`: not an IP address or CIDR block", ""),
        ),
        (
            "{key: destination.port, notValues: ['-1']}",
            (Code.INVALID_VALUE, "`-1` in `destination.port`: not a port, 0 to 65535", ""),
        ),
        ("{key: source.namespace, values: ['']}", (Code.INVALID_VALUE, "an empty string in `source.namespace`", "")),
        (
            "{key: remote.ip, values: [x]}",
            (Code.INVALID_VALUE, "`x` in `remote.ip`: not an IP address or CIDR block", ""),
        ),
        (
            "{key: 'connection.sni[a]', values: [a]}",
            (Code.INVALID_VALUE, "`connection.sni` takes no brackets", ""),
        ),
        ("null", (Code.WRONG_TYPE, "`when` wants an object, found null", "")),
    ],
)
def test_a_mistake_in_a_condition_is_named_with_a_way_out(
    entry: str, expected: tuple[StrEnum, str, str | None]
) -> None:
    found = _refused_rule(f"{{when: [{entry}]}}")[0]

    assert found[:2] == expected[:2]
    if expected[2] is not None:
        assert found[2] == expected[2]


@pytest.mark.parametrize("key", ["experimental.envoy.filters.a.b.x", "experimental.envoy.filters.a[]"])
def test_metadata_wants_a_filter_and_a_key(key: str) -> None:
    assert _refused_rule(f"{{when: [{{key: '{key}', values: [a]}}]}}") == [
        (
            Code.INVALID_VALUE,
            f"`{key}` wants a filter and a key in brackets",
            "experimental.envoy.filters.http.my_filter[key]",
        )
    ]


@pytest.mark.parametrize(
    "key", ["experimental.envoy.filters.[k]", "experimental.envoy.filters.a[k", "experimental.envoy.filters.a[k]x"]
)
def test_metadata_without_filter_or_bracket_is_refused(key: str) -> None:
    assert [row[0] for row in _refused_rule(f"{{when: [{{key: '{key}', values: [a]}}]}}")] == [Code.INVALID_VALUE]


@pytest.mark.parametrize("key", ["experimental.envoy.filters", "experimental.envoy.filters[a]", "experimental.envoy"])
def test_metadata_without_any_filter_is_an_unknown_key(key: str) -> None:
    assert _refused_rule(f"{{when: [{{key: '{key}', values: [a]}}]}}")[0][1] == f"unknown key `{key}`"


def test_conditions_are_a_list() -> None:
    assert _rule("{when: []}").conditions == ()
    assert [row[0] for row in _refused_rule("{when: null}")] == [Code.WRONG_TYPE]
    assert _refused_rule("{when: {}}") == [(Code.WRONG_TYPE, "`when` wants a list, found an object", "")]


def test_the_problem_points_at_the_value() -> None:
    text = "\n  rules:\n  - to:\n    - operation:\n        ports:\n        - '80'\n        - '80000'\n"

    (problem,) = _problems(text)

    assert (problem.position.line, problem.position.column) == (10, 11)
    assert problem.render().splitlines()[1:3] == ["            - '80000'", "              ^"]


# --- Istio's own verdicts ---------------------------------------------------------------------------------------------


def test_the_published_conditions_of_istio() -> None:
    for case in vectors.yaml_file("istio/unit-cases.yaml")["condition_validation"]:
        values = ", ".join(f"'{value}'" for value in case["values"])
        rule = f"{{when: [{{key: '{case['key']}', values: [{values}]}}]}}"
        if case.get("wantError"):
            assert _refused_rule(rule), case
        else:
            assert _rule(rule).conditions, case


def test_the_published_path_templates_of_istio() -> None:
    for case in vectors.yaml_file("istio/unit-cases.yaml")["path_template_validation"]:
        values = ", ".join(f"'{value}'" for value in case["values"])
        rule = f"{{to: [{{operation: {{paths: [{values}]}}}}]}}"
        if case.get("wantError"):
            assert {row[0] for row in _refused_rule(rule)} == {Code.INVALID_VALUE}, case
        else:
            assert _rule(rule).operations, case


def test_the_published_claim_names_of_istio() -> None:
    for case in vectors.yaml_file("istio/unit-cases.yaml")["claim_name_nested_brackets"]:
        rule = f"{{when: [{{key: 'request.auth.claims{case['s']}', values: [a]}}]}}"
        if case.get("err") or case["want"] == [""]:  # the validator refuses empty brackets, and so do we
            assert _refused_rule(rule), case
        else:
            assert _rule(rule).conditions[0][0].argument == tuple(case["want"]), case


def test_the_published_ports_of_istio() -> None:
    for case in vectors.yaml_file("istio/unit-cases.yaml")["port_values"]:
        rule = f"{{to: [{{operation: {{ports: ['{case['v']}']}}}}]}}"
        if "err" in case:
            assert [row[0] for row in _refused_rule(rule)] == [Code.INVALID_VALUE]
        else:
            assert _rule(rule).operations[0][0].values == (str(case["expect"]),)
