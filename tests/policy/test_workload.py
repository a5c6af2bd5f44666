"""Which workload a request is for: the route says it, else Envoy itself, else the settings."""

from dataclasses import replace
from typing import Any, Final

import pytest
from countersign.core.facts import Endpoint
from countersign.policy.workload import (
    GATEWAY_CLASS_LABEL,
    GATEWAY_LABEL,
    ServiceRef,
    Workload,
    WorkloadError,
    find_workload,
    workload_of,
)

from tests.support.requests import facts

ROUTE = {"workload.namespace": "route", "workload.labels": "b=2,a=1", "workload.gateway": "front"}
SILENT = replace(facts(), destination=Endpoint())


def test_the_route_comes_first() -> None:
    found = find_workload(facts(context_extensions=ROUTE), "settings", (("x", "y"),))

    assert found == Workload("route", (("a", "1"), ("b", "2")), "front")


def test_envoys_certificate_and_node_come_next() -> None:
    assert find_workload(facts(), "settings", (("x", "y"),)) == Workload("apps", (("app", "shop"),), "")


def test_the_settings_come_last() -> None:
    assert find_workload(SILENT, "settings", (("x", "y"),)) == Workload("settings", (("x", "y"),), "")


def test_a_workload_that_nobody_names_is_an_error_that_says_who_could() -> None:
    with pytest.raises(WorkloadError, match=r"^neither Envoy nor --namespace says which workload this is$"):
        find_workload(SILENT, "", ())


@pytest.mark.parametrize("text", ["a", "=1", "a=1,", "a=1,a=2", ","])
def test_labels_that_cannot_be_read_are_an_error_and_never_no_labels(text: str) -> None:
    extensions = {**ROUTE, "workload.labels": text}
    with pytest.raises(WorkloadError, match=r"^`workload.labels` is not of the form k=v,k=v$"):
        find_workload(facts(context_extensions=extensions), "", ())


@pytest.mark.parametrize(("text", "labels"), [("", ()), ("a=", (("a", ""),)), ("a=b=c", (("a", "b=c"),))])
def test_labels_may_be_none_empty_or_hold_an_equals_sign(text: str, labels: tuple[tuple[str, str], ...]) -> None:
    extensions = {"workload.namespace": "n", "workload.labels": text}

    assert find_workload(facts(context_extensions=extensions), "", (("x", "y"),)).labels == labels


# --- gateways and waypoints -------------------------------------------------------------------------------------------

FRONT: Final = (GATEWAY_LABEL, "front")
WAY: Final = {"workload.gateway": "way", "workload.gateway_class": "istio-waypoint"}


def _found(node: dict[str, str] | None = None, /, **said: str) -> Workload:
    request = replace(
        facts(context_extensions={f"workload.{name}": value for name, value in said.items()}),
        destination=Endpoint(labels=node or {}),
    )
    return find_workload(request, "apps", ())


def test_a_gateway_is_named_by_the_route_else_by_its_label() -> None:
    assert _found(dict([FRONT])).gateway == "front"
    assert _found(dict([FRONT]), gateway="back").gateway == "back"
    assert _found(dict([FRONT]), labels="app=shop").gateway == ""  # the route's labels are all there are
    assert _found(labels=f"{GATEWAY_LABEL}=side").gateway == "side"
    assert _found().gateway == ""


def test_a_waypoint_is_a_gateway_of_its_class_said_by_the_route_or_by_its_labels() -> None:
    labels = dict([FRONT, (GATEWAY_CLASS_LABEL, "istio-waypoint")])

    assert _found(labels).is_waypoint
    assert _found(dict([FRONT]), gateway_class="istio-waypoint").is_waypoint
    assert not _found(dict([FRONT])).is_waypoint
    assert not _found(labels, gateway_class="istio").is_waypoint
    assert _found(labels, gateway_class="istio").gateway_class == "istio"


def test_the_settings_labels_make_a_gateway_too() -> None:
    labels = tuple(sorted([FRONT, (GATEWAY_CLASS_LABEL, "istio-waypoint")]))

    assert find_workload(SILENT, "apps", labels) == workload_of("apps", labels)
    assert workload_of("apps", labels) == Workload("apps", labels, "front", "istio-waypoint")


def test_the_services_that_a_request_targets_are_the_routes() -> None:
    found = find_workload(
        facts(context_extensions={**WAY, "workload.services": "ServiceEntry/ext/pay.example,Service/apps/books"}),
        "",
        (),
    )

    assert found.services == (ServiceRef("Service", "apps", "books"), ServiceRef("ServiceEntry", "ext", "pay.example"))
    assert list(map(str, found.services)) == ["Service/apps/books", "ServiceEntry/ext/pay.example"]


def test_the_order_of_services_does_not_matter() -> None:
    one, other = (
        _found(dict([FRONT]), gateway_class="istio-waypoint", services=text)
        for text in ("Service/a/b,Service/a/c", "Service/a/c,Service/a/b")
    )

    assert one == other


@pytest.mark.parametrize(
    "text",
    [
        "",
        ",",
        "books",
        "apps/books",
        "Service/books",
        "Service/apps/books,",
        "Service/apps/books, Service/apps/other",
        " Service/apps/books",
        "Service/apps/books/8080",
        "Service//books",
        "Service/apps/",
        "service/apps/books",
        "Gateway/apps/way",
        "Service/apps/Books",
        "Service/apps/*",
        "Service/apps/-b",
        "Service/apps/books,Service/apps/books",
        "Service/apps/books\n",
        f"Service/apps/{'b' * 254}",
    ],
)
def test_services_that_cannot_be_read_are_an_error_and_never_none(text: str) -> None:
    with pytest.raises(WorkloadError, match=r"^`workload.services` is not of the form Service/NS/NAME,"):
        _found(dict([FRONT]), gateway_class="istio-waypoint", services=text)


@pytest.mark.parametrize("key", ["gateway", "gateway_class"])
@pytest.mark.parametrize("text", ["", "Front", "a b", "a,b", "a/b", "-a", "a-", "a\n", "*"])
def test_a_gateway_whose_name_cannot_be_read_is_an_error(key: str, text: str) -> None:
    with pytest.raises(WorkloadError, match=rf"^`workload.{key}` is no name of Kubernetes"):
        _found(**{"gateway": "front", key: text})
    assert getattr(_found(**{"gateway": "front", key: "a-1.b"}), key) == "a-1.b"


@pytest.mark.parametrize("said", [{}, {"gateway": "front"}, {"gateway": "front", "gateway_class": "istio"}])
def test_services_where_there_is_no_waypoint_are_an_error(said: dict[str, Any]) -> None:
    with pytest.raises(WorkloadError, match=r"^`workload.services` is for waypoints: .* istio-waypoint$"):
        _found(**said, services="Service/apps/books")


def test_a_waypoint_without_a_name_is_an_error() -> None:
    for found in ({"gateway_class": "istio-waypoint"}, {"labels": f"{GATEWAY_CLASS_LABEL}=istio-waypoint"}):
        with pytest.raises(WorkloadError, match=r"^a waypoint without a name: "):
            _found(**found)
    with pytest.raises(WorkloadError, match=r"^a waypoint without a name: "):
        workload_of("apps", ((GATEWAY_CLASS_LABEL, "istio-waypoint"),))


@pytest.mark.parametrize("key", ["workload.service", "workload.Gateway", "workload.", "workload.gatewayClass"])
def test_a_word_about_the_workload_that_nobody_knows_is_an_error(key: str) -> None:
    with pytest.raises(WorkloadError, match=rf"^`{key}` says nothing about a workload; known are gateway, "):
        find_workload(facts(context_extensions={key: "x"}), "", ())


def test_words_of_others_in_the_context_are_none_of_our_business() -> None:
    extensions = {"workloads": "x", "tenant": "y", "workload.service_account": "shop"}

    assert find_workload(facts(context_extensions=extensions), "", ()).namespace == "apps"
