"""Where a resource applies: ``targetRefs``; selectors and the dry run are in test_parse.py."""

from enum import StrEnum
from typing import Final

import pytest
from countersign.policy.parse import parse
from countersign.policy.problems import Code, PolicyError
from countersign.policy.resources import TargetRef

from tests.support.requests import authorization, load, peer_authentication, request_authentication

GATEWAY: Final = "{group: gateway.networking.k8s.io, kind: Gateway, name: g}"


def _targets(spec: str) -> tuple[TargetRef, ...]:
    (policy,) = load(authorization(spec)).authorization_policies
    (users,) = load(request_authentication(spec)).request_authentications
    assert policy.meta.targets == users.meta.targets
    return policy.meta.targets


def _refused(spec: str) -> list[tuple[StrEnum, str, str]]:
    with pytest.raises(PolicyError) as error:
        parse({"f": authorization(spec)}, None, lambda _: "")
    with pytest.raises(PolicyError) as other:
        parse({"f": request_authentication(spec)}, None, lambda _: "")
    rows = [(problem.code, problem.message, problem.help) for problem in error.value.problems]
    assert [problem.message for problem in other.value.problems] == [row[1] for row in rows]
    return rows


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("{}", []),
        ("{targetRef: null, targetRefs: null, selector: null}", []),
        ("{targetRefs: []}", []),
        (f"{{targetRef: {GATEWAY}}}", [("Gateway", "g")]),
        (f"{{targetRefs: [{GATEWAY}]}}", [("Gateway", "g")]),
        (f"{{targetRefs: [{GATEWAY}, {{kind: Service, name: s}}]}}", [("Gateway", "g"), ("Service", "s")]),
        ("{targetRefs: [{group: '', kind: Service, name: s, namespace: ''}]}", [("Service", "s")]),
        ("{targetRefs: [{group: core, kind: Service, name: s}]}", [("Service", "s")]),
        ("{targetRefs: [{group: networking.istio.io, kind: ServiceEntry, name: e}]}", [("ServiceEntry", "e")]),
        (
            "{targetRef: {group: gateway.networking.k8s.io, kind: GatewayClass, name: istio-waypoint}}",
            [("GatewayClass", "istio-waypoint")],
        ),
    ],
)
def test_a_target_is_a_kind_and_a_name(spec: str, expected: list[tuple[str, str]]) -> None:
    assert [(target.kind, target.name) for target in _targets(spec)] == expected


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (
            "{targetRefs: [{kind: Service}]}",
            (Code.MISSING_FIELD, "`targetRefs` entry without `name`", ""),
        ),
        (
            "{targetRefs: [{kind: Service, name: ''}]}",
            (Code.MISSING_FIELD, "`targetRefs` entry without `name`", ""),
        ),
        (
            "{targetRef: {kind: Service, name: s, namespace: other}}",
            (Code.INVALID_VALUE, "a target is in the policy's own namespace", "leave it out"),
        ),
        (
            "{targetRefs: [{kind: Gateway, name: g}]}",
            (
                Code.INVALID_VALUE,
                "a target cannot be a `Gateway` of the group ``",
                "wants a Gateway, GatewayClass, Service or ServiceEntry, and its group",
            ),
        ),
        (
            "{targetRefs: [{group: apps, kind: Deployment, name: d}]}",
            (
                Code.INVALID_VALUE,
                "a target cannot be a `Deployment` of the group `apps`",
                "wants a Gateway, GatewayClass, Service or ServiceEntry, and its group",
            ),
        ),
        (
            "{targetRefs: [{name: x}]}",
            (
                Code.INVALID_VALUE,
                "a target cannot be a `` of the group ``",
                "wants a Gateway, GatewayClass, Service or ServiceEntry, and its group",
            ),
        ),
        (
            "{targetRefs: [{kind: Service, name: s, sectionName: x}]}",
            (Code.UNKNOWN_FIELD, "unknown field `sectionName` in `targetRefs`", None),
        ),
        (
            f"{{selector: {{matchLabels: {{a: b}}}}, targetRef: {GATEWAY}}}",
            (Code.INVALID_VALUE, "`targetRef` beside `selector`", "keep one of them"),
        ),
        (
            f"{{selector: {{matchLabels: {{a: b}}}}, targetRefs: [{GATEWAY}]}}",
            (Code.INVALID_VALUE, "`targetRefs` beside `selector`", "keep one of them"),
        ),
        (
            f"{{targetRef: {GATEWAY}, targetRefs: [{GATEWAY}]}}",
            (Code.INVALID_VALUE, "`targetRefs` beside `targetRef`", "keep one of them"),
        ),
        (
            f"{{targetRefs: [{', '.join([GATEWAY] * 17)}]}}",
            (Code.INVALID_VALUE, "more than 16 targets", "split the policy"),
        ),
        ("{targetRefs: {}}", (Code.WRONG_TYPE, "`targetRefs` wants a list, found an object", "")),
    ],
)
def test_a_target_that_cannot_be_is_named_with_a_way_out(spec: str, expected: tuple[StrEnum, str, str | None]) -> None:
    found = _refused(spec)[0]

    assert found[0] is expected[0]
    assert found[1].startswith(expected[1])
    if expected[2] is not None:
        assert found[2] == expected[2]


@pytest.mark.parametrize("target", ["null", "x", "[]"])
def test_a_target_is_an_object_of_texts(target: str) -> None:
    assert _refused(f"{{targetRefs: [{target}]}}")[0][0] is Code.WRONG_TYPE
    assert Code.WRONG_TYPE in [row[0] for row in _refused("{targetRefs: [{kind: Service, name: 5}]}")]


def test_sixteen_targets_are_istios_most() -> None:
    assert len(_targets(f"{{targetRefs: [{', '.join([GATEWAY] * 16)}]}}")) == 16


@pytest.mark.parametrize("field", ["targetRef", "targetRefs"])
def test_peers_are_never_targeted(field: str) -> None:
    with pytest.raises(PolicyError) as error:
        parse({"f": peer_authentication(f"{{{field}: {GATEWAY}}}")}, None, lambda _: "")

    assert [problem.message for problem in error.value.problems] == [f"unknown field `{field}` in `spec`"]


@pytest.mark.parametrize("wrong", ["[]", "''", "[a]"])
def test_labels_of_the_wrong_type_are_an_error_even_if_they_are_empty(wrong: str) -> None:
    """Or a policy that was meant for one workload would be for all."""
    ((code, message, _),) = _refused(f"{{selector: {{matchLabels: {wrong}}}}}")

    assert code is Code.WRONG_TYPE
    assert message.startswith("`selector.matchLabels` wants an object")
    assert load(authorization("{selector: {matchLabels: {}}}")).authorization_policies[0].meta.selector == {}


def test_the_name_of_a_target_has_at_most_253_characters() -> None:
    ((code, message, _),) = _refused(f"{{targetRefs: [{{kind: Service, name: {'a' * 254}}}]}}")

    assert (code, message) == (Code.INVALID_VALUE, "the name of a target is longer than 253 characters")
    assert _targets(f"{{targetRefs: [{{kind: Service, name: {'a' * 253}}}]}}")[0].name == "a" * 253
