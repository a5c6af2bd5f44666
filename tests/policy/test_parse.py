"""Files to resources: every problem of every file at once, or a set that means what it says."""

from enum import StrEnum
from typing import Any, Final

import pytest
import yaml
from countersign.policy.parse import Loaded, errors_in, parse, unreadable
from countersign.policy.problems import Code, PolicyError, Problem, Severity

from tests.support import vectors

HEAD: Final = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata:\n  name: a\n  namespace: n\n"


def _load(text: str, namespace: str | None = None) -> Loaded:
    return parse({"f.yaml": text}, namespace, lambda _: "")


def _problems(text: str, namespace: str | None = None) -> list[Problem]:
    with pytest.raises(PolicyError) as error:
        _load(text, namespace)
    return list(error.value.problems)


def _only(text: str, namespace: str | None = None) -> tuple[StrEnum, str, str, str]:
    (problem,) = _problems(text, namespace)
    assert problem.severity is Severity.ERROR
    return problem.code, problem.message, problem.help, str(problem.position)


# --- which documents count --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
@pytest.mark.parametrize("kind", ["AuthorizationPolicy", "PeerAuthentication", "RequestAuthentication"])
def test_three_kinds_in_two_versions_are_read(kind: str, version: str) -> None:
    loaded = _load(f"apiVersion: security.istio.io/{version}\nkind: {kind}\nmetadata: {{name: a, namespace: n}}\n")

    assert len(loaded.resources) == 1
    assert loaded.warnings == ()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "---\n",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {on: 5}\n",
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nspec: anything\n",
        "kind: Deployment\n",
        "apiVersion: v1\nkind: List\nitems: []\n",
        "apiVersion: v1\nkind: List\n",
        "apiVersion: v1\nkind: Menu\nitems: 5\n",
        "kind: Service\n<<: {a: b}\n",
    ],
)
def test_other_kinds_are_passed_over(text: str) -> None:
    assert len(_load(text).resources) == 0


def test_what_is_passed_over_is_named_with_its_place() -> None:
    text = (
        "apiVersion: v1\nkind: ConfigMap\n---\n"
        + HEAD
        + "---\napiVersion: networking.istio.io/v1\nkind: Gateway\n---\napiVersion: v1\n"
        + "---\nkind: List\nitems: [{kind: Pod}]\n"
    )

    loaded = _load(text)

    assert len(loaded.resources) == 1
    assert loaded.warnings == ()
    assert loaded.skipped == (
        "ConfigMap (f.yaml:1)",
        "Gateway (f.yaml:10)",
        "something without kind (f.yaml:13)",
        "Pod (f.yaml:16)",
    )
    assert _load(HEAD).skipped == ()


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("apiVersion: v1\nkind: ConfigMap\nkind: AuthorizationPolicy\n", "f.yaml:3:1"),
        (HEAD + "kind: ConfigMap\n", "f.yaml:6:1"),
        (HEAD + "apiVersion: v1\n", "f.yaml:6:1"),
        (HEAD + "spec: {}\nspec: {}\n", "f.yaml:7:1"),
        ("kind: List\nitems: []\nitems: [{kind: AuthorizationPolicy}]\n", "f.yaml:3:1"),
        ("kind: Pod\nmetadata: {}\nmetadata: {}\n", "f.yaml:3:1"),
    ],
)
def test_a_second_key_hides_no_first_one(text: str, place: str) -> None:
    """Else the second `kind` would turn a policy into something to pass over."""
    code, _, _, position = _only(text)

    assert (code, position) == (Code.DUPLICATE_KEY, place)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5", "a resource wants an object, found a number"),
        ("- a", "a resource wants an object, found a list"),
        ("{}", "`kind: ` with `apiVersion: ` is no resource of security.istio.io"),
        ("spec: {}", "`kind: ` with `apiVersion: ` is no resource of security.istio.io"),
        (
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicies\n",
            "unknown kind `AuthorizationPolicies`",
        ),
        ("apiVersion: security.istio.io/v1\nmetadata: {name: a}\n", "unknown kind ``"),
        ("apiVersion: security.istio.io/v1\nkind: [a]\n", "unknown kind ``"),
        (
            "apiVersion: v1\nkind: authorizationpolicy\n",
            "`kind: authorizationpolicy` with `apiVersion: v1` is no resource of security.istio.io",
        ),
        (
            "apiVersion: security.istio.io/v2\nkind: PeerAuthentication\n",
            "`apiVersion: security.istio.io/v2` of PeerAuthentication",
        ),
        (
            "apiVersion: security.istio/v1\nkind: PeerAuthentication\n",
            "`apiVersion: security.istio/v1` of PeerAuthentication",
        ),
        ("kind: PeerAuthentication\n", "`apiVersion: ` of PeerAuthentication"),
        ("<<: {apiVersion: security.istio.io/v1}\nkind: PeerAuthentication\n", "`apiVersion: ` of PeerAuthentication"),
    ],
)
def test_what_may_be_meant_as_a_policy_is_never_passed_over(text: str, message: str) -> None:
    assert _only(text)[1] == message


def test_a_list_is_its_items() -> None:
    item = "{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: %s, namespace: n}}"
    inner = f"{{kind: List, items: [{item % 'b'}]}}"

    loaded = _load(f"apiVersion: v1\nkind: List\nitems:\n- {item % 'a'}\n- {inner}\n")

    assert [resource.meta.name for resource in loaded.resources.peer_authentications] == ["a", "b"]


@pytest.mark.parametrize("items", ["null", "{}", "5", "[5]", "[null]", "[[]]"])
def test_a_list_of_anything_else_is_an_error(items: str) -> None:
    assert _only(f"kind: List\nitems: {items}\n")[0] is Code.WRONG_TYPE


# --- metadata ---------------------------------------------------------------------------------------------------------


def test_name_namespace_selector_time_and_place_are_read() -> None:
    text = (
        "# comment\n\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\n"
        "metadata: {name: a, namespace: n, creationTimestamp: 2026-01-02T03:04:05Z,"
        " labels: {x: y}, annotations: {b: c}}\n"
        "spec: {selector: {matchLabels: {app: shop, tier: ''}}}\nstatus: {}\n"
    )

    (resource,) = _load(text).resources.peer_authentications

    assert (resource.meta.name, resource.meta.namespace) == ("a", "n")
    assert resource.meta.selector == {"app": "shop", "tier": ""}
    assert resource.meta.created == "2026-01-02T03:04:05Z"
    assert resource.meta.source == "f.yaml:3"


def test_a_resource_without_namespace_is_in_the_default_one_or_an_error() -> None:
    text = HEAD.replace("  namespace: n\n", "")

    assert _load(text, "dflt").resources.authorization_policies[0].meta.namespace == "dflt"
    assert _load(text + "  namespace: null\n", "dflt").resources.authorization_policies[0].meta.namespace == "dflt"
    assert _load(text + "  namespace: own\n", "dflt").resources.authorization_policies[0].meta.namespace == "own"
    assert _only(text) == (
        Code.MISSING_FIELD,
        "AuthorizationPolicy `a` without `metadata.namespace`",
        "write the namespace it applies to, or start with --namespace",
        "f.yaml:4:3",
    )


@pytest.mark.parametrize(
    ("metadata", "codes"),
    [
        ("", [Code.MISSING_FIELD]),
        ("metadata:\n", [Code.MISSING_FIELD]),
        ("metadata: {}\n", [Code.MISSING_FIELD]),
        ("metadata: {namespace: n}\n", [Code.MISSING_FIELD]),
        ("metadata: {name: '', namespace: n}\n", [Code.MISSING_FIELD]),
        ("metadata: {name: a, namespace: ''}\n", [Code.MISSING_FIELD]),
        ("metadata: x\n", [Code.WRONG_TYPE, Code.MISSING_FIELD]),
        ("metadata: {name: 5, namespace: n}\n", [Code.MISSING_FIELD, Code.WRONG_TYPE]),
        ("metadata: {name: a, namespace: on}\n", [Code.MISSING_FIELD, Code.WRONG_TYPE]),
        ("metadata: {name: a, name: b, namespace: n}\n", [Code.DUPLICATE_KEY]),
        ("metadata: {name: a, namespace: n, annotations: []}\n", [Code.WRONG_TYPE]),
    ],
)
def test_a_resource_that_is_not_named_is_an_error(metadata: str, codes: list[Code]) -> None:
    text = f"apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n{metadata}"

    assert [problem.code for problem in _problems(text)] == codes


def _annotated(value: str, kind: str = "AuthorizationPolicy", spec: str = "{}") -> str:
    return (
        f"apiVersion: security.istio.io/v1\nkind: {kind}\n"
        f"metadata: {{name: a, namespace: n, annotations: {{istio.io/dry-run: {value}}}}}\nspec: {spec}\n"
    )


@pytest.mark.parametrize(
    ("value", "tried"),
    [(f"'{text}'", True) for text in ("1", "t", "T", "TRUE", "true", "True")]
    + [(f"'{text}'", False) for text in ("0", "f", "F", "FALSE", "false", "False")],
)
@pytest.mark.parametrize("spec", ["{}", "{action: ALLOW}", "{action: DENY, rules: [{}]}"])
def test_a_dry_run_is_what_go_reads_as_true(value: str, spec: str, *, tried: bool) -> None:
    assert _load(_annotated(value, spec=spec)).resources.authorization_policies[0].dry_run is tried


@pytest.mark.parametrize("value", ["x", "''", "'yes'", "tRUE", "' true'", "'true '", "'01'"])
def test_a_dry_run_that_go_cannot_read_is_an_error(value: str) -> None:
    text = value.strip("'")
    place = _annotated(value).splitlines()[2].rindex(value) + 1

    assert _only(_annotated(value)) == (
        Code.INVALID_VALUE,
        f"`istio.io/dry-run: {text}`",
        'write "true" or "false"',
        f"f.yaml:3:{place}",
    )


@pytest.mark.parametrize("value", ["true", "1", "null", "[a]"])
def test_an_annotation_is_a_text(value: str) -> None:
    assert _only(_annotated(value))[0] is Code.WRONG_TYPE


@pytest.mark.parametrize("kind", ["PeerAuthentication", "RequestAuthentication"])
@pytest.mark.parametrize("value", ["'true'", "'false'", "x"])
def test_a_dry_run_is_for_authorization_policies_alone(kind: str, value: str) -> None:
    wrong = f"`istio.io/dry-run` is for AuthorizationPolicy, not for {kind}"

    assert _only(_annotated(value, kind))[:3] == (Code.INVALID_VALUE, wrong, "remove it")
    assert len(_load(_annotated(value, kind).replace("dry-run", "other")).resources) == 1


@pytest.mark.parametrize("name", ["parents", "parent-namespace", "webhook-always-reject"])
@pytest.mark.parametrize("kind", ["AuthorizationPolicy", "PeerAuthentication", "RequestAuthentication"])
def test_an_annotation_of_istios_own_is_an_error(kind: str, name: str) -> None:
    text = _annotated("x", kind).replace("istio.io/dry-run", f"internal.istio.io/{name}")

    assert _only(text)[:3] == (
        Code.INVALID_VALUE,
        f"the annotation `internal.istio.io/{name}` is Istio's own",
        "remove it",
    )
    assert len(_load(text.replace("internal.istio.io", "istio.io")).resources) == 1


@pytest.mark.parametrize("spec", ["{action: AUDIT, rules: [{}]}", "{action: CUSTOM, provider: {name: p}, rules: [{}]}"])
def test_a_dry_run_is_for_allow_and_deny_alone(spec: str) -> None:
    errors = errors_in(_problems(_annotated("'true'", spec=spec)))

    assert [(error.code, error.message, error.help) for error in errors] == [
        (Code.INVALID_VALUE, "only ALLOW and DENY policies have a dry run", "remove the annotation")
    ]
    assert not _load(_annotated("'false'", spec=spec)).resources.authorization_policies[0].dry_run


@pytest.mark.parametrize("selector", ["{}", "{matchLabels: null}", "{matchLabels: {}}"])
def test_an_empty_selector_selects_everything_with_a_warning(selector: str) -> None:
    loaded = _load(f"{HEAD}spec: {{selector: {selector}}}\n")

    assert loaded.resources.authorization_policies[0].meta.selector == {}
    (warning,) = loaded.warnings
    assert warning.severity is Severity.WARNING
    assert warning.message == "an empty `selector` selects every workload"


@pytest.mark.parametrize(
    ("selector", "code"),
    [
        ("x", Code.WRONG_TYPE),
        ("[]", Code.WRONG_TYPE),
        ("{matchLabels: x}", Code.WRONG_TYPE),
        ("{matchLabels: [a]}", Code.WRONG_TYPE),
        ("{matchLabels: {app: 5}}", Code.WRONG_TYPE),
        ("{matchLabels: {app: null}}", Code.WRONG_TYPE),
        ("{matchLabels: {app: a, app: b}}", Code.DUPLICATE_KEY),
        ("{matchLabels: {'': a}}", Code.INVALID_VALUE),
        ("{matchLabels: {app: " + "a" * 64 + "}}", Code.INVALID_VALUE),
        ("{matchLabels: {app: 'a*'}}", Code.INVALID_VALUE),
        ("{matchLabels: {'*': a}}", Code.INVALID_VALUE),
        ("{matchExpressions: [{key: a}], matchLabels: {app: a}}", Code.UNKNOWN_FIELD),
    ],
)
def test_a_selector_that_cannot_be_matched_literally_is_an_error(selector: str, code: Code) -> None:
    assert _only(f"{HEAD}spec: {{selector: {selector}}}\n")[0] is code


def test_a_label_has_at_most_63_characters() -> None:
    loaded = _load(f"{HEAD}spec: {{selector: {{matchLabels: {{app: {'a' * 63}}}}}}}\n")

    assert loaded.resources.authorization_policies[0].meta.selector == {"app": "a" * 63}


def test_null_annotations_are_none() -> None:
    text = _annotated("x").replace("{istio.io/dry-run: x}", "null")

    assert _load(text).resources.authorization_policies[0].dry_run is False


def test_a_null_selector_or_spec_is_absent() -> None:
    assert _load(f"{HEAD}spec: {{selector: null}}\n").warnings == ()
    assert _load(f"{HEAD}spec: null\n").warnings == ()
    assert _load(HEAD).resources.authorization_policies[0].rules == ()


@pytest.mark.parametrize("kind", ["AuthorizationPolicy", "PeerAuthentication", "RequestAuthentication"])
@pytest.mark.parametrize("spec", ["5", "[]", "x"])
def test_a_spec_is_an_object(kind: str, spec: str) -> None:
    text = f"{HEAD.replace('AuthorizationPolicy', kind)}spec: {spec}\n"

    assert _only(text)[0] is Code.WRONG_TYPE
    assert _only(text)[1].startswith("`spec` wants an object")


def test_a_field_beside_the_spec_is_an_error_with_its_neighbour() -> None:
    assert _only(f"{HEAD}spce: {{}}\n") == (
        Code.UNKNOWN_FIELD,
        "unknown field `spce` in `AuthorizationPolicy`",
        "did you mean `spec`?",
        "f.yaml:6:1",
    )


# --- all at once ------------------------------------------------------------------------------------------------------


def test_the_same_name_twice_is_an_error_that_names_the_first_place() -> None:
    text = HEAD + "---\n" + HEAD.replace("namespace: n", "namespace: m") + "---\n"

    assert len(_load(text).resources) == 2
    assert len(_load(text + HEAD.replace("AuthorizationPolicy", "PeerAuthentication")).resources) == 3
    assert _only(text + HEAD) == (
        Code.DUPLICATE_RESOURCE,
        "AuthorizationPolicy `n/a` is here twice, first at f.yaml:1",
        "rename or delete one of them",
        "f.yaml:13:1",
    )


def test_every_problem_of_every_file_is_reported_at_once_in_order() -> None:
    files = {
        "b.yaml": HEAD + "spec: {action: NONE, rulez: []}\n",
        "a.yaml": "a: [\n",
        "c.yaml": HEAD + "spec: {selector: {}}\n",
        "d.yaml": HEAD.replace("name: a", "name: fine"),
    }

    with pytest.raises(PolicyError) as error:
        parse(files, None, lambda _: "")

    assert [(str(problem.position), problem.code, problem.severity.value) for problem in error.value.problems] == [
        ("a.yaml:2:1", Code.SYNTAX, "error"),
        ("b.yaml:6:16", Code.INVALID_VALUE, "error"),
        ("b.yaml:6:22", Code.UNKNOWN_FIELD, "error"),
        ("c.yaml:1:1", Code.DUPLICATE_RESOURCE, "error"),
        ("c.yaml:6:18", Code.INVALID_VALUE, "warning"),
    ]
    assert len(errors_in(error.value.problems)) == 4
    assert str(error.value).count("\n") > len(error.value.problems)


def test_an_error_is_printed_with_its_line_a_caret_and_help() -> None:
    with pytest.raises(PolicyError) as error:
        _load(f"{HEAD}spec:\n  actoin: DENY\n")

    assert str(error.value) == (
        "f.yaml:7:3: error[CS0003]: unknown field `actoin` in `spec`\n"
        "      actoin: DENY\n"
        "      ^\n"
        "    help: did you mean `action`?"
    )


def test_a_file_that_cannot_be_read_is_a_problem_of_its_own() -> None:
    problem = unreadable("a.yaml", "permission denied")

    assert str(problem) == "a.yaml:1:1: error[CS0008]: permission denied"


# --- Istio's own verdicts ---------------------------------------------------------------------------------------------

# Istio warns; what it warns of is a matter of `countersign analyze` here.
NO_WARNING: Final = frozenset(
    {
        "L7DenyWithFrom",  # a DENY with HTTP fields closes a TCP port in Istio: there is no TCP here
        "L7DenyWithTo",
        "L7DenyWithFromAndTo",
        "jwks with private RSA key warns",  # key sets are judged by tokens.keys, which is passed in
    }
)
# Invalid in Istio because of the text of a key set, which tokens.keys judges and not the parser.
JWKS: Final = frozenset({"jwks error"})
# Nothing is wrong with it in Istio; here nobody can be asked, and that is said.
CUSTOM: Final = frozenset({"custom-good"})


def _case(resource: dict[str, Any]) -> str:
    return yaml.safe_dump(resource)


def test_the_published_validation_cases_of_istio() -> None:
    cases = vectors.yaml_file("istio/validation-cases.yaml")["cases"]

    assert len(cases) == 105
    for case in cases:
        name, text = case["name"], _case(case["resource"])
        if not case["valid"]:
            check = "no key set" if name in JWKS else ""
            with pytest.raises(PolicyError):
                parse({name: text}, "ns", lambda _, check=check: check)  # type: ignore[misc]  # a default, not an argument
            continue
        warnings = [warning.code for warning in parse({name: text}, "ns", lambda _: "").warnings]
        if name in CUSTOM:
            assert warnings == [Code.CUSTOM_DENIES], name
        else:
            assert bool(warnings) == (case["warning"] and name not in NO_WARNING), name


@pytest.mark.parametrize("kind", ["authz", "peerauth", "reqauth"])
def test_the_published_samples_of_istios_schema(kind: str) -> None:
    sound = vectors.text(f"istio/crd-samples/{kind}-valid.yaml")
    unsound = [each for each in yaml.safe_load_all(vectors.text(f"istio/crd-samples/{kind}-invalid.yaml")) if each]

    assert len(_load(sound, "ns").resources) == len([each for each in yaml.safe_load_all(sound) if each])
    assert unsound
    for sample in unsound:
        expected = sample.pop("_err")
        with pytest.raises(PolicyError) as error:
            _load(_case(sample), "ns")
        assert errors_in(error.value.problems), expected
