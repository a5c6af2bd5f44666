"""What people read when a policy is wrong: each place and each word of it. A ``§`` stands before the place.

What counts as a mistake is told in the tests of each reader; here is what is said of it.
"""

from enum import StrEnum

import pytest
from countersign.policy.parse import parse
from countersign.policy.problems import Code, PolicyError, Severity

from tests.support.requests import authorization, peer_authentication, request_authentication

KINDS = {
    "authorization": authorization,
    "peers": peer_authentication,
    "users": request_authentication,
}
URI = "jwksUri: https://idp.example/keys"
EMPTY = Code.MISSING_FIELD
WRONG = Code.INVALID_VALUE
TYPE = Code.WRONG_TYPE
CUSTOM = "action: CUSTOM, provider: {name: p}"


def _told(text: str) -> list[tuple[str, StrEnum, str, str]]:
    with pytest.raises(PolicyError) as error:
        parse({"f": text}, None, lambda text: "" if text == "sound" else "no key set")
    return [
        (f"{each.position.line}:{each.position.column}", each.code, each.message, each.help)
        for each in error.value.problems
        if each.severity is Severity.ERROR
    ]


def _marked(text: str) -> tuple[str, list[str]]:
    """The text without marks, and where they were."""
    places = []
    while "§" in text:
        before, _, after = text.partition("§")
        places.append(f"{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}")
        text = before + after
    return text, places


@pytest.mark.parametrize(
    ("spec", "code", "message", "advice"),
    [
        ("{selector: §x}", TYPE, "`selector` wants an object, found a string", ""),
        ("{selector: {matchLabels: §x}}", TYPE, "`selector.matchLabels` wants an object, found a string", ""),
        (
            "{selector: {matchLabels: {app: §5}}}",
            TYPE,
            "`selector.matchLabels.app` wants a string, found a number",
            'quote it: "5"',
        ),
        (
            "{selector: {matchLabels: §{'a*': b}}}",
            WRONG,
            "label `a*: b` in `selector.matchLabels`",
            "labels are matched literally: no empty name, no `*`",
        ),
        (
            "{selector: {matchLabels: §{app: " + "a" * 64 + "}}}",
            WRONG,
            "the value of label `app` in `selector.matchLabels` is longer than 63 characters",
            "no workload has such a label",
        ),
        (
            "{selector: {§matchLabel: {a: b}, matchLabels: {a: b}}}",
            Code.UNKNOWN_FIELD,
            "unknown field `matchLabel` in `selector`",
            "did you mean `matchLabels`?",
        ),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_mistake_in_a_selector_is_told_word_for_word(
    kind: str, spec: str, code: Code, message: str, advice: str
) -> None:
    text, places = _marked(KINDS[kind](spec))

    assert _told(text) == [(places[0], code, message, advice)]


@pytest.mark.parametrize(
    ("spec", "code", "message", "advice"),
    [
        (
            "{targetRefs: [{kind: Service, name: §5}]}",
            TYPE,
            "`targetRefs.name` wants a string, found a number",
            'quote it: "5"',
        ),
        ("{targetRefs: §x}", TYPE, "`targetRefs` wants a list, found a string", ""),
        (
            "{targetRef: {group: apps, kind: §Deployment, name: d}}",
            WRONG,
            "a target cannot be a `Deployment` of the group `apps`",
            "wants a Gateway, GatewayClass, Service or ServiceEntry, and its group",
        ),
        (
            "{targetRef: §{name: d}}",
            WRONG,
            "a target cannot be a `` of the group ``",
            "wants a Gateway, GatewayClass, Service or ServiceEntry, and its group",
        ),
        (
            "{targetRef: {kind: Service, name: s, namespace: §other}}",
            WRONG,
            "a target is in the policy's own namespace",
            "leave it out",
        ),
        (
            "{selector: {matchLabels: {a: b}}, targetRef: §{kind: Service, name: s}}",
            WRONG,
            "`targetRef` beside `selector`",
            "keep one of them",
        ),
        (
            "{targetRefs: [" + "{kind: Service, name: s}, " * 16 + "§{kind: Service, name: s}]}",
            WRONG,
            "more than 16 targets",
            "split the policy",
        ),
    ],
)
@pytest.mark.parametrize("kind", ["authorization", "users"])
def test_a_mistake_in_a_target_is_told_word_for_word(
    kind: str, spec: str, code: Code, message: str, advice: str
) -> None:
    text, places = _marked(KINDS[kind](spec))

    assert (places[0], code, message, advice) in _told(text)


@pytest.mark.parametrize(
    ("rule", "code", "message", "advice"),
    [
        ("§{jwks: sound}", EMPTY, "`issuer` is empty", "only `jwksUri` may go without an issuer"),
        ("{issuer: §'', jwks: sound}", EMPTY, "`issuer` is empty", "only `jwksUri` may go without an issuer"),
        (
            "{issuer: §i}",
            EMPTY,
            "neither `jwks` nor `jwksUri`, and the issuer `i` is no URL to ask",
            "name the keys",
        ),
        (f"{{issuer: §5, {URI}}}", TYPE, "`issuer` wants a string, found a number", 'quote it: "5"'),
        ("{issuer: i, jwks: §broken}", WRONG, "`jwks`: no key set", "a JSON object with a list `keys`"),
        ("{issuer: i, jwks: §5}", TYPE, "`jwks` wants a string, found a number", 'quote it: "5"'),
        ("{issuer: i, jwksUri: §5}", TYPE, "`jwksUri` wants a string, found a number", 'quote it: "5"'),
        (
            "{issuer: i, jwksUri: §a.b/c}",
            WRONG,
            "`jwksUri` is no http or https URL with a host",
            "https://host/path",
        ),
        (f"{{issuer: i, {URI}, audiences: [§5]}}", TYPE, "`audiences` wants a string, found a number", 'quote it: "5"'),
        (f"{{issuer: i, {URI}, audiences: [a, §'']}}", WRONG, "an empty string in `audiences`", ""),
        (f"{{issuer: i, {URI}, fromParams: [§'']}}", WRONG, "an empty string in `fromParams`", ""),
        (f"{{issuer: i, {URI}, fromCookies: [§'']}}", WRONG, "an empty string in `fromCookies`", ""),
        (f"{{issuer: i, {URI}, fromHeaders: §x}}", TYPE, "`fromHeaders` wants a list, found a string", ""),
        (
            f"{{issuer: i, {URI}, outputClaimToHeaders: §x}}",
            TYPE,
            "`outputClaimToHeaders` wants a list, found a string",
            "",
        ),
        (
            f"{{issuer: i, {URI}, outputClaimToHeaders: [{{header: a, claim: §5}}]}}",
            TYPE,
            "`claim` wants a string, found a number",
            'quote it: "5"',
        ),
        (
            f"{{issuer: i, {URI}, outputClaimToHeaders: [{{header: a, claim: b, §clam: c}}]}}",
            Code.UNKNOWN_FIELD,
            "unknown field `clam` in `outputClaimToHeaders`",
            "did you mean `claim`?",
        ),
        (
            f"{{issuer: i, {URI}, timeout: §'5'}}",
            WRONG,
            "`timeout: 5` is no positive duration",
            "such as 5s or 250ms",
        ),
        (f"{{issuer: i, {URI}, timeout: §5}}", TYPE, "`timeout` wants a string, found a number", 'quote it: "5"'),
        (f"{{issuer: i, {URI}, presence: §SURE}}", WRONG, "`presence: SURE`", "known here: OPTIONAL, REQUIRED"),
    ],
)
def test_a_mistake_in_a_jwt_rule_is_told_word_for_word(rule: str, code: Code, message: str, advice: str) -> None:
    text, places = _marked(request_authentication(f"{{jwtRules: [{rule}]}}"))

    assert _told(text) == [(places[0], code, message, advice)]


def test_each_entry_of_a_jwt_rule_is_told_of() -> None:
    text, places = _marked(
        request_authentication(
            f"{{jwtRules: [{{issuer: i, {URI}, fromHeaders: [§{{}}, {{name: a}}, §{{}}],"
            " outputClaimToHeaders: [§{header: a}, {header: a, claim: b}, §{claim: b}]}]}"
        )
    )

    assert _told(text.replace("[{}, {name: a}, {}]", "[x]"))[0][1:3] == (
        TYPE,
        "`fromHeaders` wants an object, found a string",
    )
    names, both = "`fromHeaders` entry without `name`", "`outputClaimToHeaders` entry wants both `header` and `claim`"
    assert _told(text) == [
        (place, EMPTY, message, "") for place, message in zip(places, (names, names, both, both), strict=True)
    ]


@pytest.mark.parametrize(
    ("spec", "code", "message", "advice"),
    [
        ("{mtls: §x}", TYPE, "`mtls` wants an object, found a string", ""),
        ("{mtls: {mode: §5}}", TYPE, "`mtls.mode` wants a string, found a number", 'quote it: "5"'),
        (
            "{selector: {matchLabels: {a: b}}, portLevelMtls: §x}",
            TYPE,
            "`portLevelMtls` wants an object, found a string",
            "",
        ),
        (
            "{selector: {matchLabels: {a: b}}, portLevelMtls: {80: {mode: §5}}}",
            TYPE,
            "`portLevelMtls.80.mode` wants a string, found a number",
            'quote it: "5"',
        ),
        (
            "{selector: {matchLabels: {a: b}}, portLevelMtls: {0: §{}}}",
            WRONG,
            "`0` is not a port, 1 to 65535",
            "",
        ),
        (
            "{selector: {matchLabels: {a: b}}, portLevelMtls: §{}}",
            WRONG,
            "`portLevelMtls` is empty",
            "leave it out",
        ),
        (
            "{portLevelMtls: §{80: {mode: STRICT}}}",
            WRONG,
            "`portLevelMtls` without a `selector`",
            "say whose ports: add matchLabels",
        ),
    ],
)
def test_a_mistake_about_mtls_is_told_word_for_word(spec: str, code: Code, message: str, advice: str) -> None:
    text, places = _marked(peer_authentication(spec))

    assert _told(text)[0] == (places[0], code, message, advice)


@pytest.mark.parametrize(
    ("spec", "code", "message", "advice"),
    [
        (
            f"{{{CUSTOM}, rules: §[{{from: [{{source: {{principals: [a]}}}}]}}]}}",
            WRONG,
            "`principals` in a CUSTOM policy, which runs before authentication",
            "ask for identities in an ALLOW or DENY policy",
        ),
        (
            "{action: §ALOW}",
            WRONG,
            "unknown action `ALOW`",
            "did you mean `ALLOW`?",
        ),
        (
            "{action: DENY, rules: §[]}",
            WRONG,
            "a DENY policy without rules denies nothing",
            "add a rule",
        ),
        (
            f"{{rules: [{'{}, ' * 512}§{{}}]}}",
            WRONG,
            "more than 512 rules",
            "split the policy",
        ),
        ("{rules: [{from: §[]}]}", WRONG, "`from` is empty", "leave it out to match everything"),
        (
            "{rules: [{to: [{operation: §{}}]}]}",
            WRONG,
            "`operation` is empty",
            "name a field, or leave the entry out",
        ),
        (
            "{rules: [{to: [{operation: {paths: §/a}}]}]}",
            TYPE,
            "`paths` wants a list, found a string",
            "",
        ),
        (
            "{rules: [{to: [{operation: {paths: [/a, §5]}}]}]}",
            TYPE,
            "`paths` wants a string, found a number",
            'quote it: "5"',
        ),
        (
            f"{{rules: [{{from: [{'{source: {principals: [a]}}, ' * 512}§{{source: {{principals: [a]}}}}]}}]}}",
            WRONG,
            "more than 512 entries in `from`",
            "split the rule",
        ),
    ],
)
def test_a_mistake_in_a_policy_is_told_word_for_word(spec: str, code: Code, message: str, advice: str) -> None:
    text, places = _marked(authorization(spec))

    assert _told(text) == [(places[0], code, message, advice)]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (
            "{action: CUSTOM, provider: §x, rules: [{}]}",
            [
                (TYPE, "`provider` wants an object, found a string", ""),
                (EMPTY, "CUSTOM without `provider.name`", "name the extension provider"),
            ],
        ),
        (
            "{action: CUSTOM, provider: §{name: §5}, rules: [{}]}",
            [
                (EMPTY, "CUSTOM without `provider.name`", "name the extension provider"),
                (TYPE, "`provider.name` wants a string, found a number", 'quote it: "5"'),
            ],
        ),
        (
            "{action: §NONE, provider: §{name: p}}",
            [
                (WRONG, "unknown action `NONE`", "known here: ALLOW, AUDIT, CUSTOM, DENY"),
                (WRONG, "`provider` with `action: `", "it is for CUSTOM only"),
            ],
        ),
        (
            "{rules: [{from: [§{}, {source: §{}}, §{}]}]}",
            [
                (EMPTY, "`from` entry without `source`", ""),
                (WRONG, "`source` is empty", "name a field, or leave the entry out"),
                (EMPTY, "`from` entry without `source`", ""),
            ],
        ),
        (
            "{targetRef: §{kind: Service}, targetRefs: §[§{kind: Service}]}",
            [
                (EMPTY, "`targetRefs` entry without `name`", ""),
                (WRONG, "`targetRefs` beside `targetRef`", "keep one of them"),
                (EMPTY, "`targetRefs` entry without `name`", ""),
            ],
        ),
    ],
)
def test_mistakes_in_a_policy_are_told_side_by_side(spec: str, expected: list[tuple[StrEnum, str, str]]) -> None:
    text, places = _marked(authorization(spec))
    if len(places) < len(expected):
        places *= len(expected)

    assert _told(text) == [(place, *each) for place, each in zip(places, expected, strict=True)]


@pytest.mark.parametrize(
    ("spec", "message", "advice"),
    [
        ("{selector: §{}}", "an empty `selector` selects every workload", "leave it out"),
        (
            "{rules: [{to: [{operation: {paths: [/a], hosts: §[]}}]}]}",
            "an empty `hosts` restricts nothing",
            "add a value or leave it out",
        ),
    ],
)
def test_what_has_no_effect_is_warned_of_word_for_word(spec: str, message: str, advice: str) -> None:
    text, (place,) = _marked(authorization(spec))
    (warning,) = parse({"f": text}, None, lambda _: "").warnings

    assert f"{warning.position.line}:{warning.position.column}" == place
    assert (warning.severity, warning.code) == (Severity.WARNING, WRONG)
    assert (warning.message, warning.help) == (message, advice)


KIND_ERROR = "`kind: authorizationpolicy` with `apiVersion: v1` is no resource of security.istio.io"
HEAD = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n"


@pytest.mark.parametrize(
    ("text", "code", "message", "advice"),
    [
        ("§5", TYPE, "a resource wants an object, found a number", ""),
        ("§apiVersion: v1\nkind: authorizationpolicy\n", WRONG, KIND_ERROR, "did you mean `AuthorizationPolicy`?"),
        (
            "apiVersion: security.istio.io/v1\nkind: §PeerAuthentications\n",
            WRONG,
            "unknown kind `PeerAuthentications`",
            "did you mean `PeerAuthentication`?",
        ),
        (
            "§apiVersion: security.istio.io/v1\nmetadata: {name: a}\n",
            WRONG,
            "unknown kind ``",
            "known here: AuthorizationPolicy, PeerAuthentication, RequestAuthentication",
        ),
        (
            "kind: PeerAuthentication\napiVersion: §security.istio.io/v2\n",
            WRONG,
            "`apiVersion: security.istio.io/v2` of PeerAuthentication",
            "did you mean `security.istio.io/v1`?",
        ),
        (
            "§kind: PeerAuthentication\n",
            WRONG,
            "`apiVersion: ` of PeerAuthentication",
            "known here: security.istio.io/v1, security.istio.io/v1beta1",
        ),
        ("kind: List\nitems: §5\n", TYPE, "`items` wants a list, found a number", ""),
        (
            f"§{HEAD}",
            EMPTY,
            "PeerAuthentication without `metadata`",
            "",
        ),
        (f"{HEAD}metadata: §{{namespace: n}}\n", EMPTY, "PeerAuthentication without `metadata.name`", ""),
        (
            f"{HEAD}metadata: {{name: §5, namespace: n}}\n",
            TYPE,
            "`metadata.name` wants a string, found a number",
            'quote it: "5"',
        ),
        (
            f"{HEAD}metadata: {{name: a, namespace: §5}}\n",
            TYPE,
            "`metadata.namespace` wants a string, found a number",
            'quote it: "5"',
        ),
        (
            f"{HEAD.replace('Peer', 'Request')}metadata: {{name: a, namespace: n, annotations: {{§5: a}}}}\n",
            TYPE,
            "`a field name` wants a string, found a number",
            'quote it: "5"',
        ),
        (
            (
                "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"
                "metadata: {name: a, namespace: n, annotations: {istio.io/dry-run: §true}}\n"
            ),
            TYPE,
            "`istio.io/dry-run` wants a string, found a boolean",
            'quote it: "true"',
        ),
        (f"{HEAD}metadata: §x\n", TYPE, "`metadata` wants an object, found a string", ""),
        (
            f"{HEAD}metadata: {{name: a, namespace: n, annotations: §[]}}\n",
            TYPE,
            "`metadata.annotations` wants an object, found a list",
            "",
        ),
        (
            f"{HEAD}metadata: {{name: a, namespace: n}}\n§sepc: {{}}\n",
            Code.UNKNOWN_FIELD,
            "unknown field `sepc` in `PeerAuthentication`",
            "did you mean `spec`?",
        ),
    ],
)
def test_a_mistake_about_the_resource_is_told_word_for_word(text: str, code: Code, message: str, advice: str) -> None:
    text, places = _marked(text)

    assert (places[0], code, message, advice) in _told(text)


BINDING = "countersign.io/token-binding"


@pytest.mark.parametrize(
    ("annotation", "kind", "code", "message", "advice"),
    [
        (
            "countersign.io/token-bindings: §a == peer.id",
            "RequestAuthentication",
            Code.UNKNOWN_FIELD,
            "unknown annotation `countersign.io/token-bindings`",
            f"did you mean `{BINDING}`?",
        ),
        (
            f"{BINDING}: §a == peer.id",
            "PeerAuthentication",
            WRONG,
            f"`{BINDING}` is for RequestAuthentication, not for PeerAuthentication",
            "remove it",
        ),
        (
            f"{BINDING}: §5",
            "RequestAuthentication",
            TYPE,
            f"`{BINDING}` wants a string, found a number",
            'quote it: "5"',
        ),
        (
            f"{BINDING}: §a",
            "RequestAuthentication",
            WRONG,
            f"`a` in `{BINDING}` is no comparison",
            "such as `azp == peer.service_account`, several joined with `and`",
        ),
        (
            f"{BINDING}: §''",
            "RequestAuthentication",
            WRONG,
            f"nothing to compare in `{BINDING}`",
            "such as `azp == peer.service_account`, several joined with `and`",
        ),
        (
            f"{BINDING}: §a.b == peer.id",
            "RequestAuthentication",
            WRONG,
            f"`a.b` in `{BINDING}` is no claim",
            "a name, or `request.auth.claims[a][b]` for nested ones and names with dots",
        ),
        (
            f"{BINDING}: §a == peer.ID",
            "RequestAuthentication",
            WRONG,
            f"`peer.ID` in `{BINDING}` is no part of a peer",
            "did you mean `peer.id`?",
        ),
        (
            f"{BINDING}: §{' and '.join(['a == peer.id'] * 9)}",
            "RequestAuthentication",
            WRONG,
            f"more than 8 comparisons in `{BINDING}`",
            "",
        ),
    ],
)
def test_a_mistake_in_a_token_binding_is_told_word_for_word(
    annotation: str, kind: str, code: Code, message: str, advice: str
) -> None:
    head = f"apiVersion: security.istio.io/v1\nkind: {kind}\n"
    text, places = _marked(f"{head}metadata: {{name: a, namespace: n, annotations: {{{annotation}}}}}\n")

    assert _told(text) == [(places[0], code, message, advice)]
