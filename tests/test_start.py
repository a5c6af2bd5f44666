"""What a start costs: calls of functions for each policy, memory for each rule, and modules that nobody needs yet.

Not in time, which no shared machine repeats. After a change that is worth its cost, run `python -m tests.test_start`
and copy what it prints.
"""

import gc
import subprocess
import sys
from collections.abc import Callable
from functools import cache, partial
from typing import Final

import pytest
from countersign.core.posture import Posture
from countersign.edge.policy_files import parse_files
from countersign.policy.analysis.analyze import Written, analyze
from countersign.policy.analysis.surroundings import Surroundings
from countersign.policy.resources import Resources
from countersign.policy.scope import PolicySet
from countersign.policy.workload import workload_of

from bench.counting import count_calls

FEW: Final = 200  # policies
MARGIN: Final = 1.10
DOMAINS: Final = ("cluster.local",)

# Calls for one policy more, measured with CPython 3.11; later ones inline some calls, and count fewer.
MOST: Final = {"parse": 939, "analyze": 97, "prepare": 127}
# Blocks of memory that one more of its rules holds. Compiled, as most never are, it would hold 110.
BLOCKS: Final = 40

RULE: Final = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: allow-{n}, namespace: apps}}
spec:
  action: ALLOW
  rules:
  - from:
    - source: {{principals: [cluster.local/ns/apps/sa/client-{n}], requestPrincipals: ["https://issuer.example/*"]}}
    to:
    - operation: {{methods: [GET], paths: ["/api/{n}/*"]}}
    when:
    - {{key: "request.auth.claims[groups]", values: [team-{n}]}}
"""
# Each in a namespace of its own: the mesh of many teams, where everything is held against everything.
TEAM: Final = """
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: tokens, namespace: team-{n}}}
spec: {{jwtRules: [{{issuer: "https://issuer.example", jwksUri: "https://issuer.example/jwks"}}]}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: allow, namespace: team-{n}}}
spec: {{rules: [{{from: [{{source: {{requestPrincipals: ["https://issuer.example/{n}"]}}}}]}}]}}
"""


def text(template: str, count: int) -> dict[str, str]:
    return {"policies.yaml": "---".join(template.format(n=n) for n in range(count))}


def parsed(texts: dict[str, str]) -> Resources:
    return parse_files(texts, "")[0].resources


def prepare(resources: Resources) -> None:
    PolicySet(resources, "istio-system", 1).prepare([workload_of("apps", ())], Posture.STRICT, DOMAINS)


@cache
def calls(template: str, count: int) -> dict[str, int]:
    """Calls of each stage that a set goes through before it is in force, or its warnings are told."""
    texts = text(template, count)
    resources = parsed(texts)
    work: dict[str, Callable[[], object]] = {
        "parse": partial(parsed, texts),
        "analyze": partial(analyze, Written(resources=resources, texts=texts), Surroundings()),
        "prepare": partial(prepare, resources),
    }
    for each in work.values():
        each()  # what is remembered is remembered
    return {stage: sum(count_calls(each).values()) for stage, each in work.items()}


@pytest.mark.parametrize("template", [RULE, TEAM], ids=["rules", "teams"])
@pytest.mark.parametrize("stage", MOST)
def test_twice_the_policies_cost_twice_the_calls(stage: str, template: str) -> None:
    assert calls(template, 2 * FEW)[stage] <= 2.2 * calls(template, FEW)[stage]


def measured() -> dict[str, int]:
    """Calls for one policy more, by stage."""
    return {stage: (calls(RULE, 2 * FEW)[stage] - few) // FEW for stage, few in calls(RULE, FEW).items()}


@pytest.mark.parametrize("stage", MOST)
def test_no_stage_makes_more_calls_for_a_policy_than_it_did(stage: str) -> None:
    assert measured()[stage] <= MOST[stage] * MARGIN


def objects(count: int) -> int:
    """Blocks of memory that a set in force holds."""
    texts = text(RULE, count)
    gc.collect()
    before = sys.getallocatedblocks()
    policies = PolicySet(parsed(texts), "istio-system", 1)
    policies.prepare([workload_of("apps", ())], Posture.STRICT, DOMAINS)
    gc.collect()
    return sys.getallocatedblocks() - before


def test_a_rule_holds_no_more_memory_than_what_it_says_and_where_it_is_filed() -> None:
    objects(FEW)  # what is remembered is remembered

    assert (objects(2 * FEW) - objects(FEW)) / FEW <= BLOCKS * MARGIN


def test_serve_starts_without_what_only_some_settings_need() -> None:
    """Grpcio is for the addresses that it serves: 10 MB. The client of an API server is for those who have one."""
    unneeded = {"grpc", "grpc_health.v1.health", "lightkube", "httpx2"}
    loaded = f"import sys, countersign.cli.serve; print(*{unneeded} & sys.modules.keys())"
    result = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, timeout=60, check=True)

    assert result.stdout.strip() == ""


if __name__ == "__main__":
    print(f"MOST: Final = {measured()}".replace("'", '"'))  # noqa: T201
    objects(FEW)
    print(f"BLOCKS: Final = {(objects(2 * FEW) - objects(FEW)) / FEW:.0f}")  # noqa: T201
