"""Requests a second through one Envoy worker: bare, with Envoy's own filters, and with an authorizer."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import arms, material
from bench.envoy import BenchEnvoy, by_status, client_tls, ext_authz_filter, get, native_filters
from bench.http2 import Exchange, Load
from bench.measure import CONCURRENCY, check
from bench.prepare import HOT_RULES, Bench, free_port

ENVOY_CPU = 0
OTHER_CPU = 1  # the authorizer's, and this client's

BARE = "no filter"
NATIVE = "jwt_authn + rbac, no token cache"
NATIVE_CACHED = "jwt_authn + rbac, token cache"
NOOP = "ext_authz, no-op native"
OURS = "ext_authz, countersign, 10 policies"
ARMS = (BARE, NATIVE, NATIVE_CACHED, NOOP, OURS)


def rate(bench: Bench, arm: str, seconds: float) -> float:
    """One arm's answers a second, all of them allowed."""
    request = get(material.request_path(HOT_RULES), bench.hot[0])
    policies = bench.policies(HOT_RULES)
    match arm:
        case "no filter":
            return _rate(bench, [], None, request, seconds)
        case _ if arm in {NATIVE, NATIVE_CACHED}:
            text = policies.read_text(encoding="utf-8")
            return _rate(bench, native_filters(text, cached=arm == NATIVE_CACHED), None, request, seconds)
    address = bench.directory / "arm.sock"
    command = arms.noop("native", address) if arm == NOOP else arms.countersign(address, policies, free_port())
    first = bench.checks(HOT_RULES, bench.hot)[0]
    with arms.running("arm", command, bench.directory, OTHER_CPU, first):
        return _rate(bench, [ext_authz_filter()], address, request, seconds)


def _rate(
    bench: Bench, filters: Sequence[Mapping[str, Any]], authorizer: Path | None, request: Exchange, seconds: float
) -> float:
    with BenchEnvoy(bench.directory, filters, authorizer, ENVOY_CPU) as envoy:
        load = Load(("127.0.0.1", envoy.port), by_status, tls=client_tls(bench.directory))
        try:
            load.closed_loop(itertools.repeat(request), seconds * 0.3, CONCURRENCY)
            outcome = load.closed_loop(itertools.repeat(request), seconds, CONCURRENCY)
        finally:
            load.close()
    check(outcome, {"allow": 1.0})
    return outcome.rate
