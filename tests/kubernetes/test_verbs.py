"""`countersign explain`, `analyze` and `check` with the policies of a cluster, read once."""

import json
from pathlib import Path
from typing import Any, Final

import pytest
from countersign.cli.main import main

from tests.cli.serving import free_port
from tests.cli.test_serve import BROKEN
from tests.edge.serving import READERS
from tests.kubernetes.conftest import Cluster
from tests.kubernetes.small import SmallApiServer
from tests.kubernetes.test_cluster import policy

_SLEEP: Final = "spiffe://cluster.local/ns/apps/sa/sleep"
_EXPLAIN: Final = ("explain", "--to", "apps/httpbin", "--as", _SLEEP)
VERBS: Final = {
    "explain": (*_EXPLAIN, "GET", "/", "--policies"),
    "analyze": ("analyze",),
    "check": ("check", "--workload", "apps/httpbin", "--policies"),
}
each_verb = pytest.mark.parametrize("verb", VERBS)


class Ran:
    """What a verb printed, and how it ended."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *words: str) -> None:
        self.code = main([*words])
        self.out, self.err = capsys.readouterr()

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def test_a_request_is_explained_by_the_policies_of_a_cluster(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.api.apply(policy(READERS))
    allowed = Ran(capsys, *_EXPLAIN, "GET", "/", "--policies", cluster.url, "-o", "json")
    denied = Ran(capsys, *_EXPLAIN, "DELETE", "/", "--policies", cluster.url, "-o", "json")

    assert (allowed.code, allowed.json["reason"]) == (0, "allow-rule-matched")
    assert (denied.code, denied.json["reason"]) == (1, "no-allow-rule-matched")
    assert "kubernetes://apps/AuthorizationPolicy/readers" in allowed.out


def test_files_and_a_cluster_count_together(small: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small.api.apply(policy(READERS))
    deny = tmp_path / "deny.yaml"
    deny.write_text(READERS.replace("name: readers", "name: none").replace("spec:", "spec:\n  action: DENY"))
    ran = Ran(capsys, *VERBS["explain"], small.url, "--policies", str(deny), "-o", "json")
    assert (ran.code, ran.json["reason"]) == (1, "deny-rule-matched")


def test_problems_of_a_clusters_objects_name_object_and_field(
    small: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    small.api.apply(policy(READERS))
    assert Ran(capsys, *VERBS["analyze"], small.url).code == 0
    small.api.apply(policy(BROKEN))
    analyzed, explained = (Ran(capsys, *VERBS[verb], small.url) for verb in ("analyze", "explain"))

    assert (analyzed.code, explained.code) == (1, 2)
    for said in (analyzed.out, explained.err):
        assert "error[CS0003]: unknown field `principal`" in said
        assert "kubernetes://apps/AuthorizationPolicy/" in said
        assert "(at spec.rules[0].from[0].source.principal)" in said


def test_what_applies_is_told_of_a_cluster_too(small: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    assert Ran(capsys, *VERBS["check"], small.url).code == 1
    small.api.apply(policy(READERS))
    ran = Ran(capsys, *VERBS["check"], small.url)
    assert ran.code == 0
    assert "readers.apps" in ran.out


def test_each_kind_is_listed_once_and_nothing_is_watched(small: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    assert isinstance(small.api, SmallApiServer)
    small.api.apply(policy(READERS))
    before = len(small.api.asked())
    assert Ran(capsys, *VERBS["analyze"], small.url).code == 0
    asked = small.api.asked()[before:]
    assert len(asked) == 3
    assert not any("watch" in each for each in asked)


@each_verb
def test_an_api_server_that_cannot_be_reached_is_one_clear_line(
    small: Cluster, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    small.kubeconfig.write_text(small.kubeconfig.read_text().replace(str(small.wire.port), str(free_port())))
    ran = Ran(capsys, *VERBS[verb], small.url)

    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"countersign {verb}: {small.url}: ConnectError: ")
    assert len(ran.err.strip().splitlines()) == 1


@each_verb
@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("kubernetes:/", "`kubernetes:/`: write kubernetes://"),
        ("kubernetes://?namespaces=a", "unknown parameter `namespaces`; did you mean `namespace`"),
        ("kubernetes://?kubeconfig=/nowhere/config", "kubernetes://?kubeconfig=/nowhere/config: "),
    ],
)
def test_a_cluster_that_cannot_be_meant_is_one_clear_line(
    verb: str, url: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = Ran(capsys, *VERBS[verb], url)
    assert (ran.code, ran.out) == (2, "")
    assert why in ran.err
    assert len(ran.err.strip().splitlines()) == 1


def test_what_the_api_server_refuses_is_told_with_its_reason(
    small: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    small.token.write_text("another")
    ran = Ran(capsys, *VERBS["analyze"], small.url)
    assert (ran.code, ran.out) == (2, "")
    assert "status 401" in ran.err
    assert "the API server does not take the credentials" in ran.err


def test_two_clusters_are_refused(small: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    ran = Ran(capsys, *VERBS["analyze"], small.url, "kubernetes://")
    assert (ran.code, ran.out) == (2, "")
    assert "there is another cluster already" in ran.err
