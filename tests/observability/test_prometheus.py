"""A real Prometheus asks real Countersigns: each expression of the dashboard and of the alerts gives what it should."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
import yaml
from countersign.core.identity import XFCC_HEADER
from countersign.mesh.issuer import Issuer, IssuerServer
from countersign.mesh.process import wait_until

from tests.cli.serving import Serve, free_port
from tests.cli.test_serve import BROKEN
from tests.cli.test_serve_metrics import THIEF
from tests.edge.serving import READERS, call, reason, request
from tests.edge.tls.pki import new_authority, server_of
from tests.envoy.test_mtls import countersign
from tests.kubernetes.conftest import Cluster, reached
from tests.kubernetes.relay import Relay
from tests.kubernetes.small import SmallApiServer
from tests.observability.prometheus import Prometheus
from tests.observability.queries import panels, rules, series

TOKENS = """\
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: tokens, namespace: apps}}
spec: {{jwtRules: [{{issuer: "https://issuer.test", jwksUri: "{url}"}}]}}
"""
TRIED = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: tried, namespace: apps, annotations: {istio.io/dry-run: "true"}}
spec: {action: DENY, rules: [{}]}
"""
SOON = 60.0  # seconds


@dataclass(frozen=True)
class Watched:
    """Two Countersigns and who watches them: ``serve`` has policies of a cluster, tokens and a log; ``other`` mTLS."""

    prometheus: Prometheus
    serve: Serve
    other: Serve
    cluster: Cluster
    checks: Callable[[], None]


@pytest.fixture
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    program = os.environ.get("COUNTERSIGN_PROMETHEUS", "")
    if not program:
        pytest.skip("no Prometheus here: `make observability` asks it, from Debian's package prometheus")
    issuer = Issuer("https://issuer.test")
    with ExitStack() as parts:
        keys = parts.enter_context(IssuerServer(issuer))
        api = parts.enter_context(SmallApiServer(free_port()))
        wire = parts.enter_context(Relay(free_port(), api.port))
        directory = tmp_path_factory.mktemp("cluster")
        cluster = reached(api, wire, directory)
        for text in (READERS, TRIED, TOKENS.format(url=keys.jwks_uri)):
            api.apply(yaml.safe_load(text))
        log = f"file:{directory / 'decisions.jsonl'}"
        serve = parts.enter_context(Serve(directory, cluster.url, "--namespace", "apps", "--decision-log", log))
        wait_until("being ready", lambda: serve.ready() == "ok" or None, within=SOON, child=serve.child)
        ca = new_authority()
        other, _ = parts.enter_context(countersign(tmp_path_factory.mktemp("other"), server_of(ca), ca))
        ports = [serve.port, other.port]
        prometheus = parts.enter_context(Prometheus(program, tmp_path_factory.mktemp("prometheus"), ports))
        yield Watched(prometheus, serve, other, cluster, lambda: check(serve, issuer))


def check(serve: Serve, issuer: Issuer) -> None:
    """One of each kind: allowed, denied, with a token, known and new, with a bad one."""
    fresh = issuer.sign({"sub": "alice", "exp": time.time() + 60, "jti": str(time.monotonic())})
    old = issuer.sign({"sub": "alice", "exp": time.time() - 600})
    asked: list[tuple[dict[str, Any], str]] = [
        ({}, "allow-rule-matched"),
        ({"method": "DELETE"}, "no-allow-rule-matched"),
        ({"headers": {"authorization": f"Bearer {fresh}"}}, "allow-rule-matched"),
        ({"path": "/ip", "headers": {"authorization": f"Bearer {fresh}"}}, "allow-rule-matched"),
        ({"headers": {"authorization": f"Bearer {old}"}}, "token-expired"),
    ]
    for words, expected in asked:
        assert reason(call(serve.address, request(**words).SerializeToString())) == expected


def until(watched: Watched, wish: str, probe: Callable[[], object]) -> None:
    """Send checks until it is so."""

    def probed() -> object:
        watched.checks()
        return probe() or None

    wait_until(wish, probed, within=SOON, child=watched.prometheus.child)


def test_every_expression_of_the_dashboard_gives_a_series(watched: Watched) -> None:
    """Those of mTLS of the one, those of a cluster of the other: no panel is empty for want of a metric."""
    empty = panels()

    def filled() -> bool:
        for name, expression in list(empty.items()):
            if watched.prometheus.query(expression):
                del empty[name]
        return not empty

    try:
        until(watched, "a series for each panel", filled)
    finally:
        assert empty == {}


def test_every_series_that_an_alert_reads_is_there_and_prometheus_evaluates_every_alert(watched: Watched) -> None:
    read = {each for rule in rules().values() for each in series(rule["expr"])}
    assert len(read) > len(rules())
    until(watched, "a series for each", lambda: all(watched.prometheus.query(each) for each in read))
    assert [each for each in read if not watched.prometheus.query(each)] == []

    def evaluated() -> bool:
        return {rule["health"] for rule in watched.prometheus.rules().values()} == {"ok"}

    until(watched, "an evaluation of each", evaluated)
    found = watched.prometheus.rules()
    assert found.keys() == rules().keys()
    assert watched.prometheus.query("countersign_made_up") == []
    with pytest.raises(AssertionError, match="parse error"):
        watched.prometheus.query("sum(up")
    assert {name: rule.get("lastError", "") for name, rule in found.items()} == dict.fromkeys(found, "")


def test_alerts_are_about_what_is_wrong_and_about_nothing_else(watched: Watched) -> None:
    """One fault after the other: each brings its own alert. A policy on trial would deny, from the beginning on."""
    expected = {"CountersignDryRunWouldDeny"}

    def brings(name: str, fault: Callable[[], object]) -> None:
        assert watched.prometheus.active() == expected
        fault()
        expected.add(name)
        until(watched, name, lambda: watched.prometheus.active() >= expected)

    until(watched, "the first", lambda: watched.prometheus.active() >= expected)
    stolen = request(headers={XFCC_HEADER: THIEF}).SerializeToString()
    brings("CountersignPeerMismatch", lambda: call(watched.serve.address, stolen))
    broken = yaml.safe_load(BROKEN.replace("name: readers", "name: broken"))
    brings("CountersignPoliciesRefused", lambda: watched.cluster.api.apply(broken))
    brings("CountersignClusterLost", watched.cluster.wire.down)
    brings("CountersignDown", watched.other.child.stop)
    assert watched.prometheus.active() == expected
