"""RequestAuthentication: whose tokens count, where they are, what they produce."""

from enum import StrEnum
from typing import Final

import pytest
from countersign.core.jwt_rule import ClaimToHeader, HeaderLocation, InlineKeys, JwtRule, RemoteKeys
from countersign.policy.parse import parse
from countersign.policy.problems import Code, PolicyError

from tests.support.requests import load, request_authentication

URI: Final = "jwksUri: https://idp.example/keys"
BASE: Final = f"issuer: https://idp.example, {URI}"


def _rule(members: str) -> JwtRule:
    (resource,) = load(request_authentication(f"{{jwtRules: [{{{members}}}]}}")).request_authentications
    (rule,) = resource.rules
    return rule


def _refused(spec: str, check: str = "") -> list[tuple[StrEnum, str, str]]:
    with pytest.raises(PolicyError) as error:
        parse({"f": request_authentication(spec)}, None, lambda _: check)
    return [(problem.code, problem.message, problem.help) for problem in error.value.problems]


def _refused_rule(members: str, check: str = "") -> list[tuple[StrEnum, str, str]]:
    return _refused(f"{{jwtRules: [{{{members}}}]}}", check)


@pytest.mark.parametrize("spec", ["null", "{}", "{jwtRules: null}", "{jwtRules: []}"])
def test_without_rules_nobody_is_asked(spec: str) -> None:
    (resource,) = load(request_authentication(spec)).request_authentications

    assert resource.rules == ()


def test_a_rule_of_two_members_has_istios_defaults() -> None:
    assert _rule(BASE) == JwtRule(
        issuer="https://idp.example",
        keys=RemoteKeys("https://idp.example/keys", 5.0),
        audiences=(),
        from_headers=(),
        from_params=(),
        from_cookies=(),
        output_payload_to_header="",
        output_claim_to_headers=(),
        forward_original_token=False,
        space_delimited_claims=frozenset({"scope", "permission"}),
        policy="apps/users",
        source="policy.yaml:4",
    )


def test_every_member_is_read() -> None:
    rule = _rule(
        f"{BASE}, audiences: [a, b], fromHeaders: [{{name: X-Token, prefix: 'T '}}, {{name: b, prefix: null}}],"
        "fromParams: [q], fromCookies: [c], outputPayloadToHeader: X-Payload,"
        "outputClaimToHeaders: [{header: X-Sub, claim: sub}, {header: x-role, claim: realm.roles}],"
        "forwardOriginalToken: true, timeout: 2s, spaceDelimitedClaims: [roles]"
    )

    assert rule.audiences == ("a", "b")
    assert rule.from_headers == (HeaderLocation("x-token", "T "), HeaderLocation("b", ""))
    assert rule.from_params == ("q",)
    assert rule.from_cookies == ("c",)
    assert rule.output_payload_to_header == "x-payload"
    assert rule.output_claim_to_headers == (ClaimToHeader("x-sub", "sub"), ClaimToHeader("x-role", "realm.roles"))
    assert rule.forward_original_token is True
    assert rule.keys == RemoteKeys("https://idp.example/keys", 2.0)
    assert rule.space_delimited_claims == {"scope", "permission", "roles"}


def test_null_members_are_absent() -> None:
    nulls = ", ".join(
        f"{name}: null"
        for name in (
            "audiences",
            "jwks",
            "fromHeaders",
            "fromParams",
            "fromCookies",
            "outputPayloadToHeader",
            "outputClaimToHeaders",
            "forwardOriginalToken",
            "timeout",
            "spaceDelimitedClaims",
            "presence",
        )
    )

    assert _rule(f"{BASE}, {nulls}") == _rule(BASE)


def test_inline_keys_are_kept_as_text_and_judged_by_the_caller() -> None:
    members = "issuer: i, jwks: '{\"keys\":[]}'"

    text = '{"keys":[]}'
    judged: list[str] = []

    def check(each: str) -> str:
        judged.append(each)
        return ""

    assert _rule(members).keys == InlineKeys(text)
    parse({"f": request_authentication(f"{{jwtRules: [{{{members}}}]}}")}, None, check)
    assert judged == [text]
    assert _refused_rule(members, "no keys") == [
        (Code.INVALID_VALUE, "`jwks`: no keys", "a JSON object with a list `keys`")
    ]


def test_only_a_uri_may_go_without_an_issuer() -> None:
    missing = (Code.MISSING_FIELD, "`issuer` is empty", "only `jwksUri` may go without an issuer")

    assert _rule(URI).issuer == ""
    assert _rule(f"{URI}, issuer: ''").issuer == ""
    assert _refused_rule("jwks: x") == [missing]
    assert _refused_rule("issuer: '', jwks: x") == [missing]


@pytest.mark.parametrize(
    "uri",
    [
        "http://a",
        "https://a.b/c",
        "https://a:1",
        "https://a:65535/c?d=e",
        "https://[2001:db8::1]:8443/k",
        "http://a_b~c-d/",
        "https://a/" + "x" * 2038,
    ],
)
def test_a_key_set_is_at_an_http_url(uri: str) -> None:
    assert _rule(f"issuer: i, jwksUri: '{uri}'").keys == RemoteKeys(uri)
    assert _rule(f"issuer: i, jwks_uri: '{uri}'").keys == RemoteKeys(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "a",
        "a.b/c",
        "ftp://a",
        "file:///etc/passwd",
        "https://",
        "https:///c",
        "https://a:x",
        "https://a:0",
        "https://a:65536",
        "https://a:",
        "https://user@a/c",
        "https://user:pw@a/c",
        "https://a/b c",
        "https://a/b\\nc",
        "https://a#b",
        "https://a\\\\b",
        "HTTPS://a",
        "https://é/c",
        "https://a/é",
        "https://a/%zz",
        "https://a/%2",
        "https://a/?b=%",
        "https://a/" + "x" * 2039,
    ],
)
def test_what_is_no_http_url_is_an_error(uri: str) -> None:
    assert _refused_rule(f'issuer: i, jwksUri: "{uri}"') == [
        (Code.INVALID_VALUE, "`jwksUri` is no http or https URL with a host", "https://host/path")
    ]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5s", 5.0), ("0.250s", 0.25), ("1.5000s", 1.5), ("250ms", 0.25), ("1ms", 0.001), ("2m", 120.0), ("1h", 3600.0)],
)
def test_a_timeout_is_a_positive_duration(text: str, seconds: float) -> None:
    assert _rule(f"{BASE}, timeout: {text}").keys == RemoteKeys("https://idp.example/keys", seconds)


@pytest.mark.parametrize(
    "text",
    [
        "''",
        "0s",
        "0ms",
        "0.000s",
        "-1s",
        "'5'",
        "s",
        "1.5m",
        "1m30s",
        "5 s",
        "1e3s",
        ".5s",
        "\\u0665s",
        "0.0001s",
        "inf",
    ],
)
def test_what_is_no_positive_duration_is_an_error(text: str) -> None:
    ((code, message, _),) = _refused_rule(f"{BASE}, timeout: {text}")

    assert code is Code.INVALID_VALUE
    assert message.endswith("is no positive duration")


@pytest.mark.parametrize("field", ["audiences", "fromParams", "fromCookies", "spaceDelimitedClaims"])
@pytest.mark.parametrize(
    ("value", "code"),
    [("['']", Code.INVALID_VALUE), ("[5]", Code.WRONG_TYPE), ("a", Code.WRONG_TYPE), ("[null]", Code.WRONG_TYPE)],
)
def test_a_list_of_texts_has_texts_in_it(field: str, value: str, code: Code) -> None:
    assert [row[0] for row in _refused_rule(f"{BASE}, {field}: {value}")] == [code]


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        (
            "issuer: i",
            (Code.MISSING_FIELD, "neither `jwks` nor `jwksUri`, and the issuer `i` is no URL to ask", "name the keys"),
        ),
        (f"{BASE}, jwks: x", (Code.INVALID_VALUE, "both `jwks` and `jwksUri`", "keep one of them")),
        (f"{BASE}, jwks_uri: https://b/", (Code.DUPLICATE_KEY, "both `jwksUri` and `jwks_uri`", "keep one of them")),
        (
            f"{BASE}, presence: REQIRED",
            (Code.INVALID_VALUE, "`presence: REQIRED`", "did you mean `REQUIRED`?"),
        ),
        (
            f"{BASE}, from_headers: []",
            (Code.UNKNOWN_FIELD, "unknown field `from_headers` in `jwtRules`", "did you mean `fromHeaders`?"),
        ),
        (
            f"{BASE}, forwardOriginalToken: 'true'",
            (Code.WRONG_TYPE, "`forwardOriginalToken` wants true or false, found a string", ""),
        ),
        (f"{BASE}, fromHeaders: x", (Code.WRONG_TYPE, "`fromHeaders` wants a list, found a string", "")),
        (f"{BASE}, fromHeaders: [{{}}]", (Code.MISSING_FIELD, "`fromHeaders` entry without `name`", "")),
        (f"{BASE}, fromHeaders: [{{name: null}}]", (Code.MISSING_FIELD, "`fromHeaders` entry without `name`", "")),
        (
            f"{BASE}, fromHeaders: [{{name: ''}}]",
            (Code.INVALID_VALUE, "`` is no header name in `fromHeaders.name`", "letters, digits, - and _"),
        ),
        (
            f"{BASE}, fromHeaders: [{{name: 'a b'}}]",
            (Code.INVALID_VALUE, "`a b` is no header name in `fromHeaders.name`", "letters, digits, - and _"),
        ),
        (
            f"{BASE}, fromHeaders: [{{name: a, prefix: 5}}]",
            (Code.WRONG_TYPE, "`prefix` wants a string, found a number", 'quote it: "5"'),
        ),
        (
            f"{BASE}, fromHeaders: [{{name: a, prefixes: b}}]",
            (Code.UNKNOWN_FIELD, "unknown field `prefixes` in `fromHeaders`", "did you mean `prefix`?"),
        ),
        (
            f"{BASE}, outputPayloadToHeader: ':path'",
            (Code.INVALID_VALUE, "`:path` is no header name in `outputPayloadToHeader`", "letters, digits, - and _"),
        ),
        (
            f"{BASE}, outputClaimToHeaders: [{{header: a}}]",
            (Code.MISSING_FIELD, "`outputClaimToHeaders` entry wants both `header` and `claim`", ""),
        ),
        (
            f"{BASE}, outputClaimToHeaders: [{{claim: a}}]",
            (Code.MISSING_FIELD, "`outputClaimToHeaders` entry wants both `header` and `claim`", ""),
        ),
        (
            f"{BASE}, outputClaimToHeaders: [{{header: a, claim: ''}}]",
            (Code.MISSING_FIELD, "`outputClaimToHeaders` entry wants both `header` and `claim`", ""),
        ),
        (
            f"{BASE}, outputClaimToHeaders: [{{header: 'a:b', claim: c}}]",
            (
                Code.INVALID_VALUE,
                "`a:b` is no header name in `outputClaimToHeaders.header`",
                "letters, digits, - and _",
            ),
        ),
        (
            f"{BASE}, outputClaimToHeaders: [{{header: null, claim: c}}]",
            (Code.WRONG_TYPE, "`outputClaimToHeaders.header` wants a string, found null", 'quote it: "null"'),
        ),
    ],
)
def test_a_mistake_in_a_rule_is_named_with_a_way_out(members: str, expected: tuple[StrEnum, str, str]) -> None:
    assert _refused_rule(members) == [expected]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("{jwtRules: x}", (Code.WRONG_TYPE, "`jwtRules` wants a list, found a string", "")),
        ("{jwtRule: []}", (Code.UNKNOWN_FIELD, "unknown field `jwtRule` in `spec`", "did you mean `jwtRules`?")),
        (
            "{targetRefs: [{kind: Service}]}",
            (Code.MISSING_FIELD, "`targetRefs` entry without `name`", ""),
        ),
    ],
)
def test_a_mistake_in_the_spec_is_named_with_a_way_out(spec: str, expected: tuple[StrEnum, str, str]) -> None:
    assert _refused(spec) == [expected]


@pytest.mark.parametrize("members", ["issuer: i, jwks: 5", "issuer: i, jwksUri: 5", "issuer: 5, jwksUri: https://a"])
def test_keys_and_issuer_are_texts(members: str) -> None:
    assert [row[0] for row in _refused_rule(members, "no key set")] == [Code.WRONG_TYPE]


def test_a_rule_is_an_object() -> None:
    assert _refused("{jwtRules: [null]}")[0] == (Code.WRONG_TYPE, "`jwtRules` wants an object, found null", "")


def test_several_rules_are_read_in_order_with_their_places() -> None:
    text = request_authentication(f"{{jwtRules: [\n  {{{BASE}}},\n  {{issuer: b, {URI}}}]}}")

    (resource,) = load(text).request_authentications

    assert [(rule.issuer, rule.source) for rule in resource.rules] == [
        ("https://idp.example", "policy.yaml:5"),
        ("b", "policy.yaml:6"),
    ]


@pytest.mark.parametrize(("members", "required"), [(BASE, False), (f"{BASE}, presence: OPTIONAL", False)])
def test_a_token_is_not_required_unless_it_is_said(members: str, required: bool) -> None:
    assert _rule(members).required is required
    assert _rule(f"{BASE}, presence: REQUIRED").required is True


@pytest.mark.parametrize("issuer", ["https://idp.example", "https://idp.example/", "http://127.0.0.1:8000"])
def test_without_keys_the_issuer_is_asked_where_they_are(issuer: str) -> None:
    uri = f"{issuer.removesuffix('/')}/.well-known/openid-configuration"

    assert _rule(f"issuer: '{issuer}'").keys == RemoteKeys(uri, 5.0, discover=True)
    assert _rule(f"issuer: '{issuer}', timeout: 2s").keys == RemoteKeys(uri, 2.0, discover=True)
    assert _rule(f"issuer: '{issuer}', jwksUri: https://k/").keys == RemoteKeys("https://k/", 5.0)


def test_without_keys_and_issuer_there_is_nobody_to_ask() -> None:
    assert [row[0] for row in _refused_rule("audiences: [a]")] == [Code.MISSING_FIELD]


def test_four_thousand_and_ninety_six_rules_are_istios_most() -> None:
    rule = f"{{{BASE}}}"

    assert len(load(request_authentication(f"{{jwtRules: [{', '.join([rule] * 4096)}]}}")).request_authentications) == 1
    assert _refused(f"{{jwtRules: [{', '.join([rule] * 4097)}]}}") == [
        (Code.INVALID_VALUE, "more than 4096 rules", "split the resource")
    ]


def test_sixty_four_split_claims_are_istios_most() -> None:
    claims = [f"c{number}" for number in range(65)]

    assert len(_rule(f"{BASE}, spaceDelimitedClaims: [{', '.join(claims[:64])}]").space_delimited_claims) == 66
    assert _refused_rule(f"{BASE}, spaceDelimitedClaims: [{', '.join(claims)}]") == [
        (
            Code.INVALID_VALUE,
            "more than 64 claims in `spaceDelimitedClaims`",
            "list those that policies ask for",
        )
    ]
