"""What people read about policies that load and do not do what they seem to: each place and each word of it.

A ``§`` stands before the place. When a policy is warned of, and when not, is told in test_analyze.py.
"""

from enum import StrEnum
from typing import Any, Final

import pytest
from countersign.core.posture import Posture
from countersign.policy.analysis.analyze import Written, analyze
from countersign.policy.analysis.surroundings import Surroundings
from countersign.policy.parse import parse
from countersign.policy.problems import Code
from countersign.policy.workload import Workload

from tests.support.requests import authorization, peer_authentication, request_authentication

URI: Final = "jwksUri: https://idp.example/keys"
ASKED: Final = authorization(
    "{action: DENY, rules: [{from: [{source: {notRequestPrincipals: ['*']}}], to: [{operation: {ports: ['80']}}]}]}",
    "asks",
)
USERS: Final = request_authentication(f"{{jwtRules: [{{issuer: 'https://idp.example', {URI}}}]}}") + ASKED
DOMAINS: Final = ("mesh.example", "old.example", "td")
SHOP: Final = {"shop": Workload("apps", (("app", "shop"),)), "cart": Workload("apps", (("app", "cart"),))}


def _told(text: str, **surroundings: Any) -> list[tuple[str, StrEnum, str, str]]:
    texts = {"f": text}
    resources = parse(texts, None, lambda _: "").resources
    return [
        (f"{each.position.line}:{each.position.column}", each.code, each.message, each.help)
        for each in analyze(Written(resources=resources, texts=texts), Surroundings(**surroundings))
    ]


def _marked(text: str) -> tuple[str, str]:
    """The text without its mark, and where that was."""
    before, _, after = text.partition("§")
    return before + after, f"{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"


def _rule(action: str, rule: str) -> str:
    return authorization(f"{{action: {action}, rules: [{rule}]}}")


def _denied(member: str) -> str:
    """A DENY of one operation, source or condition, that leaves TCP alone."""
    of_operations = member.startswith(("hosts:", "methods:", "paths:"))
    part, field = ("to", "operation") if of_operations else ("from", "source")
    ports = "when: [{key: destination.port, values: ['80']}]"
    return _rule("DENY", f"{{{part}: [{{{field}: {{{member}}}}}], {ports}}}")


def _when(key: str, value: str) -> str:
    return _rule("DENY", f"{{when: [{{key: destination.port, values: ['80']}}, {{key: '{key}', values: [{value}]}}]}}")


PASS: Final = "requests that should be denied pass"

VALUES: Final = [
    (
        _denied("paths: [§/a/*/b]"),
        Code.LITERAL_ASTERISK,
        f"`/a/*/b` in `paths` has a `*` that is a plain character: {PASS}",
        "one `*` counts, first or last; list the values, or for paths write {*} or {**}",
    ),
    (
        _denied("principals: [§'spiffe://td/ns/a/sa/b']"),
        Code.SPIFFE_SCHEME,
        f"`spiffe://td/ns/a/sa/b` in `principals` never matches, because `spiffe://` is put before it: {PASS}",
        "write `td/ns/a/sa/b`",
    ),
    (
        _denied("principals: [§ns/a/sa/b]"),
        Code.PRINCIPAL_NEVER_MATCHES,
        f"`ns/a/sa/b` in `principals` has no trust domain: {PASS}",
        "write `mesh.example/ns/a/sa/b`, or `*/ns/a/sa/b` for every trust domain",
    ),
    (
        _denied("principals: [§mesh.example/]"),
        Code.PRINCIPAL_NEVER_MATCHES,
        f"`mesh.example/` in `principals` is no SPIFFE ID without its scheme: {PASS}",
        "such as mesh.example/ns/NAMESPACE/sa/SERVICE-ACCOUNT",
    ),
    (
        _denied("principals: [§mesh.example]"),
        Code.PRINCIPAL_NEVER_MATCHES,
        f"`mesh.example` in `principals` names a trust domain and no workload: {PASS}",
        "write `mesh.example/*`",
    ),
    (
        _denied("principals: [§mseh.example/ns/a/sa/b]") + USERS,
        Code.PRINCIPAL_NEVER_MATCHES,
        (
            f"`mseh.example/ns/a/sa/b` in `principals` names the trust domain `mseh.example`, which is not the mesh's: "
            f"{PASS}"
        ),
        "did you mean `mesh.example`? else declare it: an alias",
    ),
    (
        _denied("trustDomains: [§cluster.locl]"),
        Code.PRINCIPAL_NEVER_MATCHES,
        f"`cluster.locl` in `trustDomains` names the trust domain `cluster.locl`, which is not the mesh's: {PASS}",
        "did you mean `cluster.local`? else declare it: an alias",
    ),
    (
        _denied("requestPrincipals: [§alice]") + USERS,
        Code.REQUEST_PRINCIPAL_NEVER_MATCHES,
        f"`alice` in `requestPrincipals` is an issuer without a subject: {PASS}",
        "write `alice/*` for all of its users",
    ),
    (
        _denied("requestPrincipals: [§'https://idp*']") + USERS,
        Code.REQUEST_PRINCIPAL_NEVER_MATCHES,
        (
            "`https://idp*` in `requestPrincipals` is cut at its last slash, into issuer `https:/` and subject `idp*`: "
            f"{PASS}"
        ),
        "write `https://idp/*`: the whole issuer, a slash, the subject",
    ),
    (
        _denied("requestPrincipals: [§'http://idp']") + USERS,
        Code.REQUEST_PRINCIPAL_NEVER_MATCHES,
        f"`http://idp` in `requestPrincipals` is cut at its last slash, into issuer `http:/` and subject `idp`: {PASS}",
        "write `http://idp/*`: the whole issuer, a slash, the subject",
    ),
    (
        _denied("requestPrincipals: [§'https://idp.example/']") + USERS,
        Code.REQUEST_PRINCIPAL_NEVER_MATCHES,
        f"`https://idp.example/` in `requestPrincipals` has an empty subject: {PASS}",
        "write `https://idp.example/*` for all of the issuer's users",
    ),
    (
        _denied("requestPrincipals: [§'https://idp.exampel/*']") + USERS,
        Code.REQUEST_PRINCIPAL_NEVER_MATCHES,
        (
            "`https://idp.exampel/*` in `requestPrincipals` has the issuer `https://idp.exampel`, "
            f"which no RequestAuthentication here accepts: {PASS}"
        ),
        "did you mean `https://idp.example`?",
    ),
    (
        _denied("requestPrincipals: [§'https://idp.example/a']")
        + USERS.replace("'https://idp.example'", "'https://idp.example/'"),
        Code.REQUEST_PRINCIPAL_NEVER_MATCHES,
        (
            "`https://idp.example/a` in `requestPrincipals` has the issuer `https://idp.example` "
            f"without its last slash: {PASS}"
        ),
        "write `https://idp.example//a`: the issuer ends with a slash of its own",
    ),
    (
        _when("request.auth.claims[[a]]", "§b"),
        Code.CLAIM_NEVER_MATCHES,
        f"`b` in `request.auth.claims[[a]]` is sought in one claim of the literal name `[a]`: {PASS}",
        "close each bracket: [a][b]",
    ),
    (
        _when("request.auth.claims[exp]", "§'5'"),
        Code.CLAIM_NEVER_MATCHES,
        f"`5` in `request.auth.claims[exp]` never matches, because `exp` is a number: {PASS}",
        "only strings and lists of them match: have the issuer write a string",
    ),
    (
        _when("request.auth.claims[email_verified]", "§'true'"),
        Code.CLAIM_NEVER_MATCHES,
        f"`true` in `request.auth.claims[email_verified]` never matches, because `email_verified` is a boolean: {PASS}",
        "only strings and lists of them match: have the issuer write a string",
    ),
    (
        _when("request.auth.claims[scope]", "§read write"),
        Code.CLAIM_NEVER_MATCHES,
        f"`read write` in `request.auth.claims[scope]` never matches, because `scope` is split at its spaces: {PASS}",
        "one word a value; to ask for several words, one `when` entry each",
    ),
    (
        _denied("methods: [§get]"),
        Code.METHOD_NEVER_MATCHES,
        f"`get` in `methods` is no HTTP method: {PASS}",
        "write `GET`: methods are upper case",
    ),
    (
        _denied("methods: [§DELTE]"),
        Code.METHOD_NEVER_MATCHES,
        f"`DELTE` in `methods` is no HTTP method: {PASS}",
        "did you mean `DELETE`?",
    ),
    (
        _denied("methods: [§gRPC]"),
        Code.METHOD_NEVER_MATCHES,
        f"`gRPC` in `methods` is no HTTP method: {PASS}",
        "such as GET, POST or DELETE; gRPC is POST",
    ),
    (
        _denied("paths: [§/admin?debug=1]"),
        Code.PATH_NEVER_MATCHES,
        f"`/admin?debug=1` in `paths` never matches, because queries and fragments are cut off before: {PASS}",
        "write `/admin`",
    ),
    (
        _denied("paths: [§admin]"),
        Code.PATH_NEVER_MATCHES,
        f"`admin` in `paths` never matches, because paths start with a slash: {PASS}",
        "write `/admin`",
    ),
    (
        _denied("paths: [§/a b]"),
        Code.PATH_NEVER_MATCHES,
        f"`/a b` in `paths` has a character that no request has in its path: {PASS}",
        "percent-encode it",
    ),
    (
        _denied("paths: [§//admin*]"),
        Code.PATH_NEVER_MATCHES,
        f"`//admin*` in `paths` is not in normal form: servers read `//admin*` as `/admin*`: {PASS}",
        "write it as servers read it",
    ),
]


@pytest.mark.parametrize(("text", "code", "message", "advice"), VALUES)
def test_a_value_is_told_of_word_for_word(text: str, code: Code, message: str, advice: str) -> None:
    text, place = _marked(text)

    assert _told(text, trust_domains=DOMAINS) == [(place, code, message, advice)]


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        ("a.example", "also list `a.example:*`"),
        (
            "*.a.example",
            "also list `*.a.example:8443`, and so on for each port in use: a suffix cannot cover them all",
        ),
    ],
)
def test_a_host_without_a_port_is_told_of_word_for_word(value: str, advice: str) -> None:
    text, place = _marked(_denied(f"hosts: [§'{value}']"))
    message = f"`{value}` in `hosts` does not match `{value.replace('*', 'a')}:8443`: {PASS}"

    assert _told(text, posture=Posture.ISTIO) == [(place, Code.HOST_WITHOUT_PORT, message, advice)]
    assert _told(text.replace("]}}]", ", 'other.example:*']}}]", 1), posture=Posture.ISTIO)[0][2] == message
    assert _told(text) == []


RULES: Final = [
    (
        _rule("ALLOW", "{from: [{source: {notPrincipals: [§td/x]}}]}"),
        Code.ADMITS_ANONYMOUS,
        "`notPrincipals` in an ALLOW rule lets in callers without a certificate: what is absent is none of the values",
        'require it as well: `principals: ["*"]` in the same source',
    ),
    (
        _rule("ALLOW", "{from: [{source: {notServiceAccounts: [§a/b]}}]}"),
        Code.ADMITS_ANONYMOUS,
        (
            "`notServiceAccounts` in an ALLOW rule lets in callers without a certificate: "
            "what is absent is none of the values"
        ),
        'require it as well: `when: [{key: source.principal, values: ["*"]}]`',
    ),
    (
        _rule("ALLOW", "{from: [{source: {notRequestPrincipals: [§'a/x']}}]}"),
        Code.ADMITS_ANONYMOUS,
        "`notRequestPrincipals` in an ALLOW rule lets in callers without a token: what is absent is none of the values",
        'require it as well: `requestPrincipals: ["*"]` in the same source',
    ),
    (
        _rule("ALLOW", "{from: [{source: {notRequestPrincipals: [§'*']}}]}"),
        Code.ADMITS_ANONYMOUS,
        "`notRequestPrincipals` in an ALLOW rule lets in only callers without a token",
        "to require it ask for `*` without the `not`; to refuse those without, move it to a DENY rule",
    ),
    (
        _rule("ALLOW", "{when: [{key: source.namespace, notValues: [§a, b]}]}"),
        Code.ADMITS_ANONYMOUS,
        (
            "`source.namespace` notValues `a, b` in an ALLOW rule lets in callers without a certificate: "
            "what is absent is none of the values"
        ),
        'require it as well: `when: [{key: source.principal, values: ["*"]}]`',
    ),
    (
        _rule("ALLOW", "{when: [{key: 'request.auth.claims[role]', notValues: [§a]}]}"),
        Code.ADMITS_ANONYMOUS,
        (
            "`request.auth.claims[role]` notValues `a` in an ALLOW rule lets in callers without a token: "
            "what is absent is none of the values"
        ),
        'require it as well: `when: [{key: request.auth.principal, values: ["*"]}]`',
    ),
    (
        _rule("ALLOW", "{when: [{key: 'request.headers[x-a]', notValues: [§a]}]}"),
        Code.ADMITS_ANONYMOUS,
        (
            "`request.headers[x-a]` notValues `a` in an ALLOW rule lets in callers without the header: "
            "what is absent is none of the values"
        ),
        'require it as well: `when: [{key: request.headers[x-a], values: ["*"]}]`',
    ),
    (
        _rule("ALLOW", "{when: [{key: connection.sni, notValues: [§a]}]}"),
        Code.ADMITS_ANONYMOUS,
        (
            "`connection.sni` notValues `a` in an ALLOW rule lets in callers without a server name: "
            "what is absent is none of the values"
        ),
        'require it as well: `when: [{key: connection.sni, values: ["*"]}]`',
    ),
    (
        _rule("ALLOW", "{when: [{key: 'experimental.envoy.filters.a[b]', notValues: [§a]}]}"),
        Code.ADMITS_ANONYMOUS,
        (
            "`experimental.envoy.filters.a[b]` notValues `a` in an ALLOW rule lets in callers without the metadata: "
            "what is absent is none of the values"
        ),
        'require it as well: `when: [{key: experimental.envoy.filters.a[b], values: ["*"]}]`',
    ),
]


@pytest.mark.parametrize(("text", "code", "message", "advice"), RULES)
def test_a_rule_is_told_of_word_for_word(text: str, code: Code, message: str, advice: str) -> None:
    text, place = _marked(text)

    assert _told(text) == [(place, code, message, advice)]


def test_a_rule_that_closes_tcp_is_told_of_word_for_word() -> None:
    assert _told(
        _rule("DENY", "{to: [{operation: {paths: [/a], ports: ['80']}}]}, {to: [{operation: {paths: [/a]}}]}")
    ) == [
        (
            "4:1",
            Code.HTTP_ONLY_DENY,
            (
                "rule 1 of DENY policy `apps/rule` has only HTTP fields: "
                "on TCP ports they fall away, and every connection is denied"
            ),
            "name the HTTP ports in each `operation`: `ports`",
        )
    ]


def test_a_rule_that_opens_the_mesh_is_told_of_word_for_word() -> None:
    text = authorization("{rules: [{}]}", namespace="istio-system")

    assert _told(text) == [
        (
            "4:1",
            Code.ALLOWS_EVERYTHING,
            (
                "an empty ALLOW rule in the root namespace `istio-system` allows every request to every workload: "
                "ALLOW policies add up, so that no other one restricts anything any more"
            ),
            "leave the policy out, or let it select the workloads that are open to all",
        )
    ]


STRICT: Final = "{mtls: {mode: STRICT}}"
SELECTING: Final = "{selector: {matchLabels: {app: shop}}, mtls: {mode: STRICT}}"
ISSUER: Final = f"{{issuer: i, {URI}}}"
REFS: Final = "{group: gateway.networking.k8s.io, kind: Gateway, name: web}, {kind: Service, name: s}"

RESOURCES: Final = [
    (
        peer_authentication(SELECTING, namespace="istio-system"),
        "1:1",
        Code.INEFFECTIVE_POLICY,
        "PeerAuthentication `istio-system/peers` has no effect: in the root namespace one with a selector is ignored",
        "move it to the namespace of its workloads, or drop the selector if the whole mesh is meant",
    ),
    (
        request_authentication("{}"),
        "1:1",
        Code.INEFFECTIVE_POLICY,
        "RequestAuthentication `apps/users` has no effect: without `jwtRules` no token is looked at",
        "add a rule, or delete it",
    ),
    (
        authorization("{targetRefs: [{group: gateway.networking.k8s.io, kind: GatewayClass, name: other}]}"),
        "1:1",
        Code.INEFFECTIVE_POLICY,
        (
            "AuthorizationPolicy `apps/rule` applies to nothing: as a GatewayClass only `istio-waypoint` is a target, "
            "and only in the root namespace, `istio-system`"
        ),
        "target a Gateway, Service or ServiceEntry of its own namespace",
    ),
    (
        request_authentication("{jwtRules: [{issuer: i, jwksUri: §http://idp.example/keys}]}") + ASKED,
        "",
        Code.PLAINTEXT_KEYS,
        "the keys of issuer `i` come over plain HTTP: whoever is on the way can sign tokens",
        "write `https://idp.example/keys`",
    ),
    (
        request_authentication(f"{{jwtRules: [{ISSUER}, {{issuer: j, {URI}}}]}}", "one")
        + request_authentication(f"{{jwtRules: [{{issuer: §i, {URI}}}]}}", "two")
        + ASKED,
        "",
        Code.DUPLICATE_ISSUER,
        (
            "issuer `i` stands in `apps/one` (f:4) too: "
            "a token passes if either rule takes it, so that the laxer one decides"
        ),
        "one rule an issuer, with all of its audiences",
    ),
    (
        request_authentication(f"{{jwtRules: [{ISSUER}]}}"),
        "1:1",
        Code.TOKEN_NOT_REQUIRED,
        (
            "RequestAuthentication `apps/users` checks tokens that nobody has to send: "
            "a request without one passes, and no AuthorizationPolicy for the same workloads asks for one"
        ),
        'add an ALLOW rule with `requestPrincipals`, or a DENY rule with `notRequestPrincipals: ["*"]`',
    ),
    (
        peer_authentication(STRICT, "b") + peer_authentication(STRICT, "a"),
        "1:1",
        Code.COMPETING_POLICIES,
        (
            "PeerAuthentication `apps/b` is ignored where `apps/a` (f:6) applies too: "
            "of one level only one counts, first by name, and not even the other's ports are added"
        ),
        "merge them into one",
    ),
    (
        peer_authentication(STRICT, "a").replace("}", ", creationTimestamp: '2026-01-01T00:00:00Z'}", 1)
        + peer_authentication(STRICT, "b").replace("}", ", creationTimestamp: '2025-01-01T00:00:00Z'}", 1),
        "1:1",
        Code.COMPETING_POLICIES,
        (
            "PeerAuthentication `apps/a` is ignored where `apps/b` (f:6) applies too: "
            "of one level only one counts, the older, and not even the other's ports are added"
        ),
        "merge them into one",
    ),
    (
        peer_authentication(SELECTING.replace("shop", "shpo, tier: web")),
        "1:1",
        Code.NO_MATCHING_WORKLOAD,
        "PeerAuthentication `apps/peers` applies to no known workload: none in `apps` with app=shpo, tier=web",
        "known here: cart, shop",
    ),
    (
        authorization(f"{{targetRefs: [{REFS}]}}"),
        "1:1",
        Code.NO_MATCHING_WORKLOAD,
        "AuthorizationPolicy `apps/rule` applies to no known workload: none is or serves Gateway `web`, Service `s`",
        "known here: cart, shop",
    ),
]


@pytest.mark.parametrize(("text", "place", "code", "message", "advice"), RESOURCES)
def test_a_resource_is_told_of_word_for_word(text: str, place: str, code: Code, message: str, advice: str) -> None:
    if not place:
        text, place = _marked(text)

    assert _told(text, workloads=SHOP) == [(place, code, message, advice)]


def test_a_key_that_is_put_aside_is_told_of_word_for_word() -> None:
    texts = {"f": request_authentication("{jwtRules: [{issuer: i, jwks: keys}]}") + ASKED}
    resources = parse(texts, None, lambda _: "").resources
    keys = resources.request_authentications[0].rules[0].keys
    (problem,) = analyze(
        Written(resources=resources, texts=texts, unusable_keys={keys: ["number 1: too short"]}), Surroundings()
    )

    assert problem.message == "a key of issuer `i` is put aside: number 1: too short"
    assert problem.help == "list the public keys that verify, and no others; a private key that stood here is known"
