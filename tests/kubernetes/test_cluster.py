"""`countersign serve --policies kubernetes://`, as small and real API servers have it alike."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from countersign.mesh.process import wait_until

from tests.cli.serving import Serve
from tests.cli.test_readiness import told
from tests.cli.test_serve import BROKEN, NOBODY, becomes, decide
from tests.cli.test_serve_metrics import scraped
from tests.edge.serving import READERS
from tests.kubernetes.conftest import Cluster

PLAINTEXT_REFUSED = """\
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: apps}
spec: {mtls: {mode: STRICT}}
"""
TOKENS = """\
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens, namespace: apps}
spec: {jwtRules: [{issuer: "https://issuer.test", jwks: '{"keys": []}'}]}
"""
OTHERS = READERS.replace("namespace: apps", "namespace: others").replace("sa/sleep", "sa/nobody")


def policy(text: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def serving(directory: Path, cluster: Cluster, *flags: str, url: str = "") -> Serve:
    return Serve(directory, url or cluster.url, "--namespace", "apps", *flags)


@pytest.fixture
def serve(tmp_path: Path, cluster: Cluster) -> Iterator[Serve]:
    """With one policy, and ready."""
    cluster.api.apply(policy(READERS))
    with serving(tmp_path, cluster) as found:
        wait_until("being ready", lambda: found.ready() == "ok" or None, within=20, child=found.child)
        yield found


def watched(serve: Serve, expected: str) -> None:
    """Wait until the check of the cluster begins so."""
    begins = f"{expected}"
    wait_until(
        begins, lambda: any(line.startswith(begins) for line in told(serve)) or None, within=40, child=serve.child
    )


def metric(serve: Serve, name: str) -> float:
    found: Mapping[tuple[str, ...], float] = scraped(serve)
    return found.get((f"countersign_{name}",), 0.0)


def test_all_three_kinds_are_in_force_and_a_change_flips_the_decision(serve: Serve, cluster: Cluster) -> None:
    assert decide(serve) == "allow-rule-matched"
    cluster.api.apply(policy(NOBODY), policy(PLAINTEXT_REFUSED), policy(TOKENS))
    assert becomes(serve, "no-allow-rule-matched")
    serve.wait_for_log("policies loaded: 3 resources")
    cluster.api.delete("PeerAuthentication", "apps", "default")
    serve.wait_for_log("policies loaded: 2 resources")
    cluster.api.apply(policy(READERS))
    assert becomes(serve, "allow-rule-matched")
    assert "[+]cluster ok" in told(serve)
    assert metric(serve, "cluster_lists_total") == 3
    assert metric(serve, "cluster_watched") == 1


def test_after_a_broken_connection_it_goes_on_where_it_was_and_lists_nothing(serve: Serve, cluster: Cluster) -> None:
    cluster.api.apply(policy(NOBODY))
    assert becomes(serve, "no-allow-rule-matched")
    before = cluster.api.asked()
    cluster.wire.cut()
    wait_until("three watches", lambda: len(cluster.api.asked()) >= len(before) + 3 or None, within=20)
    cluster.api.apply(policy(READERS))
    assert becomes(serve, "allow-rule-matched")

    after = cluster.api.asked()[len(before) :]
    assert all("watch=true" in each for each in after), after
    first, *_ = [each for each in before if "authorizationpolicies?watch" in each]
    (again,) = [each for each in after if "authorizationpolicies?watch" in each]
    assert version_of(again) > version_of(first)  # that of the change, not that of the list
    assert metric(serve, "cluster_lists_total") == 3


def version_of(uri: str) -> int:
    return int(uri.partition("resourceVersion=")[2].partition("&")[0])


def test_what_was_lost_while_it_was_away_is_listed_again(serve: Serve, cluster: Cluster) -> None:
    cluster.api.apply(policy(OTHERS), policy(PLAINTEXT_REFUSED))
    serve.wait_for_log("policies loaded: 3 resources")
    cluster.wire.down()
    watched(serve, "[!]cluster: what kubernetes://")
    cluster.api.apply(policy(NOBODY))
    cluster.api.delete("PeerAuthentication", "apps", "default")
    cluster.api.forget()
    assert decide(serve) == "allow-rule-matched"
    before = len(cluster.api.asked())
    cluster.wire.up()
    watched(serve, "[+]cluster ok")
    assert becomes(serve, "no-allow-rule-matched")
    serve.wait_for_log("policies loaded: 2 resources")

    asked = [each for each in cluster.api.asked()[before:] if "authorizationpolicies" in each]
    lists = [number for number, each in enumerate(asked) if "watch=true" not in each]
    assert len(lists) == 1
    assert 0 < lists[0] < len(asked) - 1  # a watch from where it was, which gets 410, and one from the new list
    wait_until("all lists", lambda: metric(serve, "cluster_lists_total") == 6 or None, within=20, child=serve.child)


def test_a_server_that_is_away_changes_nothing_and_is_told(serve: Serve, cluster: Cluster) -> None:
    cluster.wire.down()
    watched(serve, f"[!]cluster: what {cluster.url} said last counts, changes do not come: ")
    serve.wait_for_log(f"{cluster.url} cannot be watched, what it said last counts: ")
    assert serve.ready() == "ok"
    assert decide(serve) == "allow-rule-matched"
    assert metric(serve, "cluster_watched") == 0
    assert metric(serve, "cluster_failures_total") > 0
    cluster.wire.up()
    watched(serve, "[+]cluster ok")
    serve.wait_for_log(f"{cluster.url} is watched")
    cluster.api.apply(policy(NOBODY))
    assert becomes(serve, "no-allow-rule-matched")


def test_without_a_server_at_the_start_nobody_passes_until_it_is_there(tmp_path: Path, cluster: Cluster) -> None:
    cluster.api.apply(policy(READERS))
    cluster.wire.down()
    with serving(tmp_path, cluster) as serve:
        watched(serve, f"[-]cluster failed: {cluster.url} is waited for: ")
        assert told(serve)[0] == "503"
        assert decide(serve) == "no-policies-loaded"
        cluster.wire.up()
        wait_until("being ready", lambda: serve.ready() == "ok" or None, within=30, child=serve.child)
        assert decide(serve) == "allow-rule-matched"


def test_a_broken_object_is_told_with_its_field_and_the_last_good_set_stays(serve: Serve, cluster: Cluster) -> None:
    cluster.api.apply(policy(BROKEN.replace("name: readers", "name: broken")), policy(NOBODY))
    serve.wait_for_log("kubernetes://apps/AuthorizationPolicy/broken:")
    serve.wait_for_log("unknown field `principal` in `source` (at spec.rules[0].from[0].source.principal)")
    refused = "[!]policies: what the objects of the cluster say now is refused, and generation 1 stays in force"
    watched(serve, refused)
    assert decide(serve) == "allow-rule-matched"
    cluster.api.delete("AuthorizationPolicy", "apps", "broken")
    assert becomes(serve, "no-allow-rule-matched")
    assert "[+]policies ok" in told(serve)


def test_when_the_last_policy_goes_the_last_good_set_stays(serve: Serve, cluster: Cluster) -> None:
    cluster.api.delete("AuthorizationPolicy", "apps", "readers")
    serve.wait_for_log(f"found no policy in {cluster.url}: the last good set stays in force")
    assert decide(serve, method="POST") == "no-allow-rule-matched"
    assert decide(serve) == "allow-rule-matched"
    cluster.api.apply(policy(NOBODY))
    assert becomes(serve, "no-allow-rule-matched")


def test_what_is_forbidden_is_said_with_what_to_grant(tmp_path: Path, cluster: Cluster) -> None:
    cluster.api.apply(policy(READERS))
    cluster.api.forbidden.add("requestauthentications")
    with serving(tmp_path, cluster) as serve:
        serve.wait_for_log("RequestAuthentication: status 403: requestauthentications.security.istio.io is forbidden:")
        assert 'cannot list resource "requestauthentications"' in serve.log
        assert "grant get, list and watch, as deploy/kubernetes/cluster-policies does" in serve.log
        assert decide(serve) == "no-policies-loaded"  # part of the policies is no policies
        assert told(serve)[0] == "503"


def test_only_the_namespaces_that_are_named_count(tmp_path: Path, cluster: Cluster) -> None:
    cluster.api.apply(policy(READERS), policy(BROKEN.replace("namespace: apps", "namespace: others")))
    with serving(tmp_path, cluster, url=f"{cluster.url}&namespace=apps&namespace=istio-system") as serve:
        wait_until("being ready", lambda: serve.ready() == "ok" or None, within=20, child=serve.child)
        assert decide(serve) == "allow-rule-matched"
        wait_until("all lists", lambda: metric(serve, "cluster_lists_total") == 6 or None, within=20, child=serve.child)
