"""Which policies apply to which workload."""

import itertools
from dataclasses import replace
from typing import Any, Final

import pytest
import yaml
from countersign.core.posture import Posture
from countersign.policy.problems import PolicyError
from countersign.policy.resources import MtlsMode, Resources
from countersign.policy.scope import PolicySet, PortMode, scope
from countersign.policy.workload import GATEWAY_CLASS_LABEL, ServiceRef, Workload, workload_of

from tests.support import vectors
from tests.support.requests import (
    APP,
    ROOT_NAMESPACE,
    authorization,
    load,
    peer_authentication,
    request_authentication,
    scoped,
)

SHOP: Final = "{selector: {matchLabels: {app: shop}}"
KEYS: Final = "jwksUri: https://k/"


def _allowed(text: str, workload: Workload = APP) -> list[str]:
    return [policy.meta.name for policy in scoped(text, workload).http.allow]


# --- selection --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("namespace", "applies"), [("apps", True), (ROOT_NAMESPACE, True), ("other", False), ("app", False)]
)
def test_a_policy_applies_in_its_namespace_and_from_the_root_namespace(namespace: str, *, applies: bool) -> None:
    assert _allowed(authorization("{}", "p", namespace)) == (["p"] if applies else [])


@pytest.mark.parametrize(
    ("selector", "labels", "applies"),
    [
        ("{}", (), True),
        ("{app: shop}", (("app", "shop"),), True),
        ("{app: shop}", (("app", "shop"), ("tier", "front")), True),
        ("{app: shop, tier: front}", (("app", "shop"), ("tier", "front")), True),
        ("{app: shop, tier: front}", (("app", "shop"),), False),
        ("{app: shop}", (("app", "shop2"),), False),
        ("{app: shop}", (("App", "shop"),), False),
        ("{app: shop}", (), False),
        ("{app: ''}", (("app", ""),), True),
        ("{app: ''}", (), False),
    ],
)
@pytest.mark.parametrize("namespace", ["apps", ROOT_NAMESPACE])
def test_a_selector_wants_all_of_its_labels(
    selector: str, labels: tuple[tuple[str, str], ...], namespace: str, *, applies: bool
) -> None:
    text = authorization(f"{{selector: {{matchLabels: {selector}}}}}", "p", namespace)

    assert _allowed(text, Workload("apps", labels)) == (["p"] if applies else [])


def test_no_level_shadows_another() -> None:
    text = (
        authorization("{}", "mesh", ROOT_NAMESPACE)
        + authorization("{}", "wide")
        + authorization(f"{SHOP}}}", "own")
        + authorization("{action: DENY, rules: [{}]}", "stop", ROOT_NAMESPACE)
    )

    found = scoped(text)

    assert [policy.meta.name for policy in found.http.allow] == ["mesh", "wide", "own"]
    assert [policy.meta.name for policy in found.http.deny] == ["stop"]


# --- gateways ---------------------------------------------------------------------------------------------------------

GATEWAY: Final = Workload("apps", APP.labels, "front")


def _at(name: str, kind: str = "Gateway") -> str:
    group = {"Service": "core", "ServiceEntry": "networking.istio.io"}.get(kind, "gateway.networking.k8s.io")
    return f"{{group: {group}, kind: {kind}, name: {name}}}"


@pytest.mark.parametrize(
    ("targets", "applies"),
    [
        (_at("front"), True),
        (f"{_at('other')}, {_at('front')}", True),
        (_at("other"), False),
        (_at("Front"), False),
        (_at("front", "GatewayClass"), False),
        (_at("front", "Service"), False),
        (_at("front", "ServiceEntry"), False),
    ],
)
def test_a_policy_with_targets_is_for_the_gateways_that_it_names(targets: str, *, applies: bool) -> None:
    text = authorization(f"{{targetRefs: [{targets}]}}", "p")

    assert _allowed(text, GATEWAY) == (["p"] if applies else [])
    assert _allowed(text) == []  # never for a plain workload


@pytest.mark.parametrize("namespace", [ROOT_NAMESPACE, "other"])
def test_a_target_is_a_gateway_of_the_policys_own_namespace(namespace: str) -> None:
    text = authorization(f"{{targetRefs: [{_at('front')}]}}", "p", namespace)

    assert _allowed(text, GATEWAY) == []
    assert _allowed(text, Workload(namespace, (), "front")) == ["p"]


def test_policies_without_targets_are_for_gateways_too() -> None:
    text = authorization("{}", "wide") + authorization(f"{SHOP}}}", "selected")

    assert _allowed(text, GATEWAY) == ["wide", "selected"]


def test_tokens_of_a_gateway_are_those_of_its_targets() -> None:
    text = request_authentication(f"{{targetRefs: [{_at('front')}], jwtRules: [{{issuer: a, {KEYS}}}]}}")

    assert [rule.issuer for rule in scoped(text, GATEWAY).jwt_rules] == ["a"]
    assert scoped(text).jwt_rules == ()


# --- waypoints --------------------------------------------------------------------------------------------------------


def _waypoint(*services: ServiceRef, namespace: str = "apps") -> Workload:
    return Workload(namespace, APP.labels, "way", "istio-waypoint", services)


BOOKS: Final = ServiceRef("Service", "apps", "books")
PAYMENTS: Final = ServiceRef("ServiceEntry", "apps", "payments")


@pytest.mark.parametrize(
    ("targets", "services", "applies"),
    [
        (_at("way"), (), True),
        (_at("other"), (), False),
        (_at("books", "Service"), (BOOKS,), True),
        (_at("books", "Service"), (PAYMENTS, BOOKS), True),
        (_at("books", "Service"), (PAYMENTS,), False),
        (_at("books", "Service"), (), False),
        (_at("way", "Service"), (BOOKS,), False),
        (_at("books", "ServiceEntry"), (BOOKS,), False),
        (_at("payments", "ServiceEntry"), (PAYMENTS,), True),
        (_at("payments", "Service"), (PAYMENTS,), False),
        (_at("books"), (BOOKS,), False),
        (f"{_at('other')}, {_at('books', 'Service')}", (BOOKS,), True),
        (f"{_at('books', 'Service')}, {_at('way')}", (), True),
        (_at("istio-waypoint", "GatewayClass"), (BOOKS,), False),  # only from the root namespace
    ],
)
def test_a_waypoint_takes_what_names_it_or_the_service_that_is_asked_for(
    targets: str, services: tuple[ServiceRef, ...], *, applies: bool
) -> None:
    allow = authorization(f"{{targetRefs: [{targets}]}}", "p")
    users = request_authentication(f"{{targetRefs: [{targets}], jwtRules: [{{issuer: a, {KEYS}}}]}}")

    found = scoped(allow + users, _waypoint(*services))

    assert [policy.meta.name for policy in found.http.allow] == (["p"] if applies else [])
    assert [rule.issuer for rule in found.jwt_rules] == (["a"] if applies else [])


@pytest.mark.parametrize("namespace", ["apps", "other", ROOT_NAMESPACE])
def test_a_service_is_of_the_policys_namespace_wherever_its_waypoint_is(namespace: str) -> None:
    text = authorization(f"{{targetRefs: [{_at('books', 'Service')}]}}", "p", namespace)
    theirs = ServiceRef("Service", namespace, "books")

    for waypoint in ("apps", "other", ROOT_NAMESPACE):
        assert _allowed(text, _waypoint(theirs, namespace=waypoint)) == ["p"]
        assert _allowed(text, _waypoint(ServiceRef("Service", "third", "books"), namespace=waypoint)) == []


@pytest.mark.parametrize(
    ("name", "namespace", "applies"),
    [
        ("istio-waypoint", ROOT_NAMESPACE, True),
        ("istio-waypoint", "apps", False),
        ("istio", ROOT_NAMESPACE, False),
        ("way", ROOT_NAMESPACE, False),
    ],
)
def test_a_gateway_class_is_every_waypoint_if_the_root_namespace_says_so(
    name: str, namespace: str, *, applies: bool
) -> None:
    text = authorization(f"{{targetRefs: [{_at(name, 'GatewayClass')}]}}", "p", namespace)

    assert _allowed(text, _waypoint()) == (["p"] if applies else [])
    assert _allowed(text, _waypoint(namespace="elsewhere")) == (["p"] if applies else [])
    assert _allowed(text, Workload("apps", APP.labels, "way", name if name != "istio-waypoint" else "")) == []


@pytest.mark.parametrize("namespace", ["apps", ROOT_NAMESPACE])
@pytest.mark.parametrize("spec", ["{}", f"{SHOP}}}"])
def test_a_waypoint_passes_over_selectors_and_bare_policies(spec: str, namespace: str) -> None:
    selector = spec.removesuffix("}").removeprefix("{")
    users = f"{{{selector}{', ' if selector else ''}jwtRules: [{{issuer: a, {KEYS}}}]}}"
    text = authorization(spec, "p", namespace) + request_authentication(users, "u", namespace)

    assert _allowed(text, _waypoint(BOOKS)) == []
    assert scoped(text, _waypoint(BOOKS)).jwt_rules == ()
    assert _allowed(text, GATEWAY) == ["p"]  # a gateway of another class is a workload as any other
    assert [rule.issuer for rule in scoped(text, GATEWAY).jwt_rules] == ["a"]


def test_a_waypoints_mtls_is_that_of_any_workload() -> None:
    text = peer_authentication(f"{SHOP}, mtls: {{mode: STRICT}}}}")

    assert scoped(text, _waypoint(BOOKS)).mtls.mode is MtlsMode.STRICT


# --- tokens -----------------------------------------------------------------------------------------------------------


def test_rules_of_all_policies_add_up_sorted_by_issuer() -> None:
    text = (
        request_authentication(f"{{jwtRules: [{{issuer: c, {KEYS}}}, {{issuer: a, {KEYS}}}]}}", "root", ROOT_NAMESPACE)
        + request_authentication(f"{{jwtRules: [{{issuer: b, {KEYS}}}]}}", "own")
        + request_authentication(f"{{jwtRules: [{{issuer: x, {KEYS}}}]}}", "foreign", "other")
        + request_authentication(
            f"{{selector: {{matchLabels: {{app: x}}}}, jwtRules: [{{issuer: y, {KEYS}}}]}}", "app-x"
        )
    )

    assert [rule.issuer for rule in scoped(text).jwt_rules] == ["a", "b", "c"]


def test_of_one_issuer_the_workloads_own_rule_is_first_then_the_oldest_then_the_name() -> None:
    def policy(name: str, namespace: str, created: str) -> str:
        text = request_authentication(f"{{jwtRules: [{{issuer: a, audiences: [{name}], {KEYS}}}]}}", name, namespace)
        return text.replace("metadata: {", f"metadata: {{creationTimestamp: '{created}', ")

    text = (
        policy("root", ROOT_NAMESPACE, "2020-01-01T00:00:00Z")
        + policy("younger", "apps", "2022-01-01T00:00:00Z")
        + policy("older-b", "apps", "2021-01-01T00:00:00Z")
        + policy("older-a", "apps", "2021-01-01T00:00:00Z")
    )

    assert [rule.audiences[0] for rule in scoped(text).jwt_rules] == ["older-a", "older-b", "younger", "root"]


def test_of_one_issuer_a_waypoints_rules_come_before_those_of_a_service_elsewhere() -> None:
    """Whatever their names: its own namespace, the root namespace, the service's."""
    text = "".join(
        request_authentication(
            f"{{targetRefs: [{target}], jwtRules: [{{issuer: a, audiences: [{name}], {KEYS}}}]}}", name, namespace
        )
        for name, namespace, target in (
            ("a-service", "shop", _at("books", "Service")),
            ("b-root", ROOT_NAMESPACE, _at("istio-waypoint", "GatewayClass")),
            ("c-own", "apps", _at("way")),
        )
    )
    waypoint = _waypoint(ServiceRef("Service", "shop", "books"))

    assert [rule.audiences[0] for rule in scoped(text, waypoint).jwt_rules] == ["c-own", "b-root", "a-service"]


# --- mTLS -------------------------------------------------------------------------------------------------------------


def _mode(text: str, port: int = 1, workload: Workload = APP) -> MtlsMode:
    return scoped(text, workload).mtls_on(port).mode


def test_without_any_policy_both_kinds_of_connection_are_taken() -> None:
    assert scoped("").mtls == PortMode(mode=MtlsMode.PERMISSIVE)
    assert scoped("").mtls_by_port == {}


MODES: Final = ("UNSET", "DISABLE", "PERMISSIVE", "STRICT")


@pytest.mark.parametrize(("mesh", "namespace", "own"), list(itertools.product(MODES, repeat=3)))
def test_the_nearest_level_that_says_a_mode_wins(mesh: str, namespace: str, own: str) -> None:
    text = (
        peer_authentication(f"{{mtls: {{mode: {mesh}}}}}", "mesh", ROOT_NAMESPACE)
        + peer_authentication(f"{{mtls: {{mode: {namespace}}}}}", "ns")
        + peer_authentication(f"{SHOP}, mtls: {{mode: {own}}}}}", "own")
    )
    said = [mode for mode in (own, namespace, mesh) if mode != "UNSET"]

    assert _mode(text) == (said[0] if said else "PERMISSIVE")


def test_a_mode_names_the_policy_that_set_it() -> None:
    text = peer_authentication("{mtls: {mode: STRICT}}", "mesh", ROOT_NAMESPACE) + peer_authentication("{}", "ns")

    assert scoped(text).mtls == PortMode(mode=MtlsMode.STRICT, policy=f"{ROOT_NAMESPACE}/mesh", source="policy.yaml:1")


def test_a_port_of_the_workloads_policy_wins_and_an_unset_one_inherits() -> None:
    text = peer_authentication("{mtls: {mode: STRICT}}", "mesh", ROOT_NAMESPACE) + peer_authentication(
        f"{SHOP}, portLevelMtls: {{80: {{mode: DISABLE}}, 90: {{mode: UNSET}}, 100: {{}}}}}}", "own"
    )

    found = scoped(text)

    assert {port: mode.mode.value for port, mode in found.mtls_by_port.items()} == {
        80: "DISABLE",
        90: "STRICT",
        100: "STRICT",
    }
    assert found.mtls_on(80).policy == "apps/own"
    assert found.mtls_on(80).source == "policy.yaml:6"
    assert found.mtls_on(90).policy == f"{ROOT_NAMESPACE}/mesh"
    assert found.mtls_on(8080) == found.mtls


def test_ports_of_another_workloads_policy_do_not_count() -> None:
    text = peer_authentication("{selector: {matchLabels: {app: other}}, portLevelMtls: {80: {mode: STRICT}}}", "other")

    assert _mode(text, 80) is MtlsMode.PERMISSIVE


def test_a_selector_in_the_root_namespace_is_ignored_as_istio_ignores_it() -> None:
    text = peer_authentication(f"{SHOP}, mtls: {{mode: STRICT}}}}", "root", ROOT_NAMESPACE)

    assert _mode(text) is MtlsMode.PERMISSIVE
    assert _mode(text, workload=Workload(ROOT_NAMESPACE, APP.labels)) is MtlsMode.PERMISSIVE


def test_in_the_root_namespace_the_mesh_policy_is_the_namespaces() -> None:
    text = peer_authentication("{mtls: {mode: STRICT}}", "mesh", ROOT_NAMESPACE)

    assert _mode(text, workload=Workload(ROOT_NAMESPACE, ())) is MtlsMode.STRICT


def test_another_namespaces_policy_does_not_count() -> None:
    assert _mode(peer_authentication("{mtls: {mode: STRICT}}", "ns", "other")) is MtlsMode.PERMISSIVE


@pytest.mark.parametrize(
    ("namespace", "selector"), [(ROOT_NAMESPACE, ""), ("apps", ""), ("apps", "selector: {matchLabels: {app: shop}}, ")]
)
def test_of_several_policies_at_one_level_the_oldest_counts_alone(namespace: str, selector: str) -> None:
    def policy(name: str, mode: str, created: str) -> str:
        text = peer_authentication(f"{{{selector}mtls: {{mode: {mode}}}}}", name, namespace)
        return text.replace("metadata: {", f"metadata: {{creationTimestamp: '{created}', ")

    old, young = "2021-01-01T00:00:00Z", "2022-01-01T00:00:00Z"

    assert _mode(policy("a", "DISABLE", young) + policy("b", "STRICT", old)) is MtlsMode.STRICT
    assert _mode(policy("a", "STRICT", old) + policy("b", "DISABLE", old)) is MtlsMode.STRICT
    assert _mode(policy("b", "DISABLE", old) + policy("a", "STRICT", old)) is MtlsMode.STRICT


@pytest.mark.parametrize("created", ["null", "~", ""])
def test_a_timestamp_that_says_nothing_is_as_old_as_none(created: str) -> None:
    """`creationTimestamp: null` stands in what many tools write; to Istio it is the zero time, older than any."""
    nothing = peer_authentication("{mtls: {mode: STRICT}}", "b")
    nothing = nothing.replace("metadata: {", f"metadata: {{creationTimestamp: {created}, ")
    dated = peer_authentication("{mtls: {mode: DISABLE}}", "a")
    dated = dated.replace("metadata: {", "metadata: {creationTimestamp: '2021-01-01T00:00:00Z', ")

    assert _mode(nothing + dated) is MtlsMode.STRICT
    assert _mode(nothing.replace("STRICT", "DISABLE") + dated.replace("DISABLE", "STRICT")) is MtlsMode.DISABLE


def test_timestamps_are_compared_as_times() -> None:
    def policy(name: str, mode: str, created: str) -> str:
        text = peer_authentication(f"{{mtls: {{mode: {mode}}}}}", name)
        return text.replace("metadata: {", f"metadata: {{creationTimestamp: '{created}', ")

    noon, later = "2021-01-01T12:00:00Z", "2021-01-01T13:00:00+02:00"  # an hour before noon

    assert _mode(policy("a", "DISABLE", noon) + policy("b", "STRICT", later)) is MtlsMode.STRICT
    assert _mode(policy("a", "DISABLE", noon) + policy("b", "STRICT", "2021-01-01T13:00:00Z")) is MtlsMode.DISABLE


@pytest.mark.parametrize(
    "created",
    ["yesterday", "2021-01-01", "2021-13-01T00:00:00Z", "20210101T000000Z", "[]", "0001-01-01T00:00:00+01:00"],
)
def test_what_is_no_timestamp_is_an_error(created: str) -> None:
    text = peer_authentication("{}").replace("metadata: {", f"metadata: {{creationTimestamp: {created}, ")

    with pytest.raises(ValueError, match="creationTimestamp"):
        load(text)


# --- the set ----------------------------------------------------------------------------------------------------------


def test_a_scope_is_remembered_and_memory_is_bounded() -> None:
    policies = PolicySet(load(authorization("{}")), ROOT_NAMESPACE, 3)
    first = policies.for_workload(APP)

    assert policies.generation == 3
    assert policies.for_workload(APP) is first
    for number in range(1024):
        policies.for_workload(Workload(f"n{number}", ()))
    assert len(policies._scoped) <= 1024
    assert policies.for_workload(APP) == first
    assert policies.for_workload(APP) is not first


def test_resources_are_counted_over_all_kinds() -> None:
    text = authorization("{}") + peer_authentication("{}") + request_authentication("{}")

    assert len(load(text)) == 3
    assert len(Resources()) == 0


# --- Istio's own tables -----------------------------------------------------------------------------------------------

AGES: Final = {"t-1s": "2026-01-01T00:00:00Z", "t0": "2026-01-01T00:00:01Z"}


def _published(policies: list[dict[str, Any]]) -> Resources:
    documents = []
    for policy in policies:
        metadata = dict(policy["metadata"])
        if "creationTimestamp" in metadata:
            metadata["creationTimestamp"] = AGES[metadata["creationTimestamp"]]
        documents.append({"apiVersion": "security.istio.io/v1", **policy, "metadata": metadata})
    return load(yaml.safe_dump_all(documents))


def test_the_published_merges_of_peer_authentication() -> None:
    workload = Workload("my-ns", (("app", "foo"), ("stage", "prod")))
    for case in vectors.yaml_file("istio/unit-cases.yaml")["peer_authentication_merge"]:
        found = scope(_published(case["policies_already_selected"]), workload, case["root_namespace"])
        assert found.mtls.mode == case["want"]["mode"], case["name"]
        ports = {port: mode.mode.value for port, mode in found.mtls_by_port.items()}
        assert ports == case["want"].get("perPort", {}), case["name"]


# Rows of Istio's table that we decide otherwise, and why.
BOTH: Final = "a selector beside targets does not load (Istio's webhook refuses it too)"
SWITCHED_OFF: Final = "ENABLE_SELECTOR_BASED_K8S_GATEWAY_POLICY=false is a switch of Istio's that we do not have"
OTHERWISE: Final = {
    "non-gateway API workload and both a targetRef and a selector": BOTH,
    "gateway API ingress and both a targetRef and a selector": BOTH,
    "waypoint and both a targetRef and a selector": BOTH,
    "gateway API ingress and a selector (policy attachment only)": SWITCHED_OFF,
}


def _published_workload(said: dict[str, Any]) -> Workload:
    labels = dict(said["labels"])
    if said.get("is_waypoint"):
        labels[GATEWAY_CLASS_LABEL] = "istio-waypoint"
    services = [ServiceRef(found["kind"], found["namespace"], found["name"]) for found in said.get("services", ())]
    return replace(workload_of(said["namespace"], tuple(sorted(labels.items()))), services=tuple(services))


def test_the_published_attachments() -> None:
    cases = vectors.yaml_file("istio/unit-cases.yaml")["policy_attachment"]
    otherwise = set()

    for case in cases:
        text = yaml.safe_dump(
            {
                "apiVersion": "security.istio.io/v1",
                "kind": "AuthorizationPolicy",
                "metadata": {"name": "p", "namespace": case["policy_namespace"]},
                "spec": case["policy"],
            }
        )
        if OTHERWISE.get(case["name"]) is BOTH:
            with pytest.raises(PolicyError, match="keep one of them"):
                load(text)
            otherwise.add(case["name"])
            continue
        found = bool(scope(load(text), _published_workload(case["workload"]), ROOT_NAMESPACE).http.allow)
        if found is not case["expected"]:
            otherwise.add(case["name"])
    assert otherwise == OTHERWISE.keys()
    assert len(cases) == 26


def test_a_set_can_be_prepared_for_the_workloads_that_another_served() -> None:
    old, new = (PolicySet(load(authorization("{}")), ROOT_NAMESPACE, generation) for generation in (1, 2))
    old.for_workload(APP)
    new.prepare(old.workloads(), Posture.STRICT, ("td",))

    assert old.workloads() == new.workloads() == (APP,)
    assert list(new.for_workload(APP).engines) == [(tcp, Posture.STRICT, ("td",)) for tcp in (False, True)]
    assert not old.for_workload(APP).engines


def test_a_set_scopes_by_its_root_namespace_and_compiles_once() -> None:
    found = PolicySet(load(authorization("{}", "mesh", ROOT_NAMESPACE)), ROOT_NAMESPACE, 1).for_workload(APP)
    engine = found.engine(tcp=False, posture=Posture.STRICT, trust_domains=("td",))

    assert [policy.meta.name for policy in found.http.allow] == ["mesh"]
    assert found.engine(tcp=False, posture=Posture.STRICT, trust_domains=("td",)) is engine
    assert found.engine(tcp=True, posture=Posture.STRICT, trust_domains=("td",)) is not engine
    assert found.engine(tcp=False, posture=Posture.ISTIO, trust_domains=("td",)) is not engine
