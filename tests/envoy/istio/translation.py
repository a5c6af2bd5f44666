"""The judge's translator held against Istio's: the filters of random policies, and their modes of mTLS."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from random import Random
from typing import Final

from tests.envoy.istio.normal import normal
from tests.envoy.istio.oracle import Made, Oracle
from tests.envoy.istio.prepare import ask, asked, known
from tests.envoy.judge import generate_peers, jwt_authn
from tests.envoy.judge.generate import policy_set
from tests.envoy.judge.matchers import Json
from tests.envoy.judge.policy_set import MESH, PORTS, PROVIDERS, PolicySet
from tests.envoy.judge.rules import Target
from tests.envoy.judge.translate import filters

_JWT: Final = "envoy.filters.http.jwt_authn"
_NAMES: Final = [{"prefix": f"spiffe://{domain}/"} for domain in MESH.trust_domains]


def compare(oracle: Oracle, seed: str, sets: int) -> Iterator[tuple[str, str]]:
    """For each thing that is compared its kind, and the difference; empty where there is none."""
    rng = Random(seed)  # noqa: S311 (repeatable, not secret)
    for number in range(sets):
        drawn = policy_set(rng, f"set-{number}", generate_peers.for_mesh(rng))
        own = known(replace(drawn, documents=[*drawn.shared, *drawn.documents], shared=()))
        (made,) = ask(oracle, own.documents, [asked(own)])
        for kind, ours, theirs in _compared(own, made):
            yield kind, "" if ours == theirs else _difference(own, ours, theirs)


def _compared(policies: PolicySet, made: Made) -> Iterator[tuple[str, object, object]]:
    authorization = policies.applying("AuthorizationPolicy")
    for kind, found in (("HTTP", made.http), ("TCP", made.tcp)):
        target = Target(mesh=MESH, providers=PROVIDERS, tcp=kind == "TCP")
        theirs = [normal(each) for each in found if each["name"] != _JWT]
        yield kind, [normal(each) for each in filters(authorization, target)], theirs
    yield "tokens", _tokens(policies), _tokens_of(made.http)
    modes = policies.modes()
    theirs_by_port = {port: each["mode"] for port, each in made.ports.items()}
    yield "mTLS", (modes.mode, {port: modes.on(port) for port in PORTS.values()}), (made.mode, theirs_by_port)
    wanted = {port: [] if modes.on(port) == "DISABLE" else _NAMES for port in PORTS.values()}
    yield "trust domains", wanted, {port: each["names"] for port, each in made.ports.items()}


def _tokens(policies: PolicySet) -> Json | None:
    rules = jwt_authn.rules_of(policies.applying("RequestAuthentication"))
    if not rules:
        return None
    config = jwt_authn.filter_config(rules)
    requirement = config["requirement_map"][jwt_authn.REQUIREMENT]
    providers: Json = normal({"providers": config["providers"]})
    return {**providers, "requires": normal(requirement), "bypass": config["bypass_cors_preflight"]}


def _tokens_of(made: Sequence[Json]) -> Json | None:
    found = [each["typedConfig"] for each in made if each["name"] == _JWT]
    if not found:
        return None
    (config,) = found
    (rule,) = config["rules"]
    assert rule["match"] == {"prefix": "/"}, rule
    providers: Json = normal({"providers": config["providers"]})
    return {**providers, "requires": normal(rule["requires"]), "bypass": config["bypassCorsPreflight"]}


def _difference(policies: PolicySet, ours: object, theirs: object) -> str:
    documents = "\n".join(json.dumps(each) for each in policies.documents)
    return (
        f"{documents}\n  ours:    {json.dumps(ours, sort_keys=True)}\n  Istio's: {json.dumps(theirs, sort_keys=True)}"
    )
