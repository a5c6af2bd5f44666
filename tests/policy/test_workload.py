"""Which workload a request is for: the route says it, else Envoy itself, else the settings."""

from dataclasses import replace

import pytest
from countersign.core.facts import Endpoint
from countersign.policy.workload import Workload, WorkloadError, find_workload

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
