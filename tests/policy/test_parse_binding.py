"""The annotation that binds tokens to their workload: a small grammar, read when it is loaded or refused there."""

from typing import Any, Final

import pytest
import yaml
from countersign.core.binding import PeerPart
from countersign.core.jwt_rule import JwtRule
from countersign.policy.parse import parse
from countersign.policy.problems import Code, PolicyError, Problem
from countersign.policy.reading.parse_binding import MAX_COMPARISONS, TOKEN_BINDING

RULE: Final = {"issuer": "https://i.example", "jwksUri": "https://i.example/keys"}


def _text(annotations: dict[str, Any], kind: str = "RequestAuthentication", rules: int = 1) -> str:
    spec: dict[str, Any] = {"jwtRules": [RULE] * rules} if kind == "RequestAuthentication" else {}
    metadata = {"name": "n", "namespace": "ns", "annotations": annotations}
    return yaml.safe_dump({"apiVersion": "security.istio.io/v1", "kind": kind, "metadata": metadata, "spec": spec})


def _rules(annotations: dict[str, Any], rules: int = 1) -> tuple[JwtRule, ...]:
    (found,) = parse({"p.yaml": _text(annotations, rules=rules)}, None, lambda _: "").resources.request_authentications
    return found.rules


def _bindings(text: str) -> list[tuple[tuple[str, ...], PeerPart]]:
    (rule,) = _rules({TOKEN_BINDING: text})
    return [(binding.claim, binding.part) for binding in rule.bindings]


def _problem(annotations: dict[str, Any], kind: str = "RequestAuthentication") -> Problem:
    with pytest.raises(PolicyError) as error:
        parse({"p.yaml": _text(annotations, kind)}, None, lambda _: "")
    (problem,) = error.value.problems
    return problem


@pytest.mark.parametrize(
    ("text", "claim", "part"),
    [
        ("azp == peer.service_account", ("azp",), PeerPart.SERVICE_ACCOUNT),
        ("client_id == peer.id", ("client_id",), PeerPart.ID),
        ("ns==peer.namespace", ("ns",), PeerPart.NAMESPACE),
        ("  td  ==  peer.trust_domain  ", ("td",), PeerPart.TRUST_DOMAIN),
        ("request.auth.claims[azp] == peer.id", ("azp",), PeerPart.ID),
        ("request.auth.claims[a][b] == peer.id", ("a", "b"), PeerPart.ID),
        ("request.auth.claims[kubernetes.io][namespace] == peer.namespace", ("kubernetes.io", "namespace"),
         PeerPart.NAMESPACE),
        ("request.auth.claims[https://a/b] == peer.id", ("https://a/b",), PeerPart.ID),
    ],
)  # fmt: skip
def test_a_comparison_is_a_claim_and_a_part_of_the_peer(text: str, claim: tuple[str, ...], part: PeerPart) -> None:
    assert _bindings(text) == [(claim, part)]


@pytest.mark.parametrize("joint", [" and ", "\n", "\n  ", " and\t", "  and  "])
def test_several_are_joined_by_and_or_by_lines(joint: str) -> None:
    both = [(("azp",), PeerPart.SERVICE_ACCOUNT), (("ns",), PeerPart.NAMESPACE)]

    assert _bindings(f"azp == peer.service_account{joint}ns == peer.namespace") == both
    assert _bindings(f"azp == peer.service_account{joint}ns == peer.namespace\n") == both


def test_every_rule_of_the_resource_is_bound_and_others_are_not() -> None:
    rules = _rules({TOKEN_BINDING: "azp == peer.id"}, rules=3)

    assert [len(rule.bindings) for rule in rules] == [1, 1, 1]
    assert [rule.bindings for rule in _rules({"other.example/note": "x"}, rules=2)] == [(), ()]


def test_a_binding_knows_its_text_and_its_line() -> None:
    (rule,) = _rules({TOKEN_BINDING: "azp  ==  peer.id"})
    (binding,) = rule.bindings

    assert (binding.text, binding.source) == ("azp == peer.id", "p.yaml:5")


@pytest.mark.parametrize(
    ("text", "told", "advice"),
    [
        ("", "nothing to compare", "azp == peer.service_account"),
        ("azp", "no comparison", "azp == peer.service_account"),
        ("azp = peer.id", "no comparison", "azp =="),
        ("azp != peer.id", "no comparison", "azp =="),
        ("== peer.id", "no comparison", "azp =="),
        ("azp ==", "no comparison", "azp =="),
        ("azp == peer.id\n\nns == peer.namespace", "nothing to compare", "azp =="),
        ("azp == peer.id and", "`peer.id and`", "did you mean `peer.id`?"),
        ("azp == peer.id or ns == peer.namespace", "is no part of a peer", ""),
        ("azp == peer.id == peer.id", "is no part of a peer", ""),
        ("azp == peer.serviceAccount", "`peer.serviceAccount`", "did you mean `peer.service_account`?"),
        ("azp == Peer.id", "`Peer.id`", "did you mean `peer.id`?"),
        ("azp == id", "`id`", "peer."),
        ('azp == "sleep"', "is no part of a peer", "known here"),
        ("peer.id == azp", "`peer.id` in `countersign.io/token-binding` is no claim", ""),
        ("kubernetes.io == peer.id", "is no claim", "request.auth.claims[a][b]"),
        ("a[b] == peer.id", "is no claim", "request.auth.claims"),
        ("request.auth.claims[] == peer.id", "is no claim", "request.auth.claims"),
        ("request.auth.claims == peer.id", "is no claim", "request.auth.claims"),
        ("request.auth.claims[a]b == peer.id", "is no claim", "request.auth.claims"),
        ("request.auth.claims[[a]] == peer.id", "is no claim", "request.auth.claims"),
        ("request.auth.claim[a] == peer.id", "is no claim", "request.auth.claims"),
        (" and ".join(["azp == peer.id"] * (MAX_COMPARISONS + 1)), "more than 8", ""),
    ],
)
def test_anything_else_is_an_error_with_its_place_and_what_to_write(text: str, told: str, advice: str) -> None:
    with pytest.raises(PolicyError) as error:
        parse({"p.yaml": _text({TOKEN_BINDING: text})}, None, lambda _: "")
    problem = error.value.problems[0]

    assert problem.code is Code.INVALID_VALUE
    assert told in problem.message
    assert advice in problem.help
    assert (problem.position.file, problem.position.line) == ("p.yaml", 5)
    assert problem.position.column > len(TOKEN_BINDING)


def test_as_many_comparisons_as_there_may_be_are_read() -> None:
    assert len(_bindings(" and ".join(["azp == peer.id"] * MAX_COMPARISONS))) == MAX_COMPARISONS


def test_a_value_that_is_no_string_is_an_error() -> None:
    assert _problem({TOKEN_BINDING: ["azp == peer.id"]}).code is Code.WRONG_TYPE


@pytest.mark.parametrize("kind", ["AuthorizationPolicy", "PeerAuthentication"])
def test_on_another_kind_of_resource_it_would_bind_nothing_and_is_an_error(kind: str) -> None:
    problem = _problem({TOKEN_BINDING: "azp == peer.id"}, kind)

    assert problem.code is Code.INVALID_VALUE
    assert f"is for RequestAuthentication, not for {kind}" in problem.message


@pytest.mark.parametrize(
    "name",
    [
        "countersign.io/token-bindings",
        "countersign.io/token_binding",
        "countersign.io/x",
        "countersing.io/token-binding",
    ],
)
def test_an_annotation_that_is_nearly_ours_would_bind_nothing_and_is_an_error(name: str) -> None:
    problem = _problem({name: "azp == peer.id"})

    assert problem.code is Code.UNKNOWN_FIELD
    assert TOKEN_BINDING in problem.help


def test_other_peoples_annotations_are_none_of_our_business() -> None:
    _rules({"token-binding": "x", "example.io/token-binding-policy": "x", "kubectl.kubernetes.io/last-applied": "{}"})
