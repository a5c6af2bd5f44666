"""Policy sets with the filters that Istio's own code makes of them, in the place of our translator's."""

import contextlib
import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from tests.envoy.istio.build import build
from tests.envoy.istio.oracle import Asked, Made, Oracle
from tests.envoy.judge import jwt_authn, key_server, policy_set, tokens
from tests.envoy.judge.matchers import Json
from tests.envoy.judge.peers import Modes
from tests.envoy.judge.policy_set import MESH, PORTS, PROVIDERS, PolicySet, Prepare

_JWT: Final = "envoy.filters.http.jwt_authn"
_CUSTOM: Final = "istio_ext_authz_"  # what the shadow rules of CUSTOM report under
_BAD: Final = "-deny-due-to-bad-CUSTOM-action"
_DISCOVERED: Final = "/.well-known/openid-configuration"  # filters.go: a rule that names neither keys nor their address
_SERVICES: Final[Sequence[Json]] = [
    {"hostname": each["envoyExtAuthzGrpc"]["service"], "name": name, "namespace": name, "external": True}
    for name, each in PROVIDERS.items()
]


@contextlib.contextmanager
def prepared_by(judge: str) -> Iterator[Prepare]:
    """How policy sets are prepared: ``ours`` leaves them to our translator, ``istio`` asks Istio's."""
    if judge == "ours":
        yield list
        return
    with Oracle(build()) as oracle:
        yield lambda sets: prepare(oracle, sets)


def prepare(oracle: Oracle, sets: Sequence[PolicySet]) -> list[PolicySet]:
    """The sets with what Istio makes of them, all in one mesh."""
    sets = [known(each) for each in sets]
    documents = [*sets[0].shared, *(document for each in sets for document in each.documents)]
    found = ask(oracle, documents, [asked(each) for each in sets])
    return [replace(each, made=made(filters)) for each, filters in zip(sets, found, strict=True)]


def ask(oracle: Oracle, documents: Sequence[Json], workloads: Sequence[Asked]) -> list[Made]:
    """What Istio makes for workloads of the judge's mesh. It must accept every document."""
    verdicts, found = oracle.make(documents, workloads, MESH, list(PROVIDERS.values()), _SERVICES)
    refused = [(said, each) for said, each in zip(verdicts, documents, strict=True) if not said.accepted]
    assert not refused, refused[0]
    return found


def asked(policies: PolicySet) -> Asked:
    """The workload of a set."""
    return Asked(namespace=policies.name, labels=policies.labels, ports=list(PORTS.values()))


def known(policies: PolicySet) -> PolicySet:
    """The set without `presence`, which this Istio does not know yet."""
    documents = copy.deepcopy(list(policies.documents))
    for document in documents:
        for rule in document["spec"].get("jwtRules", ()):
            rule.pop("presence", None)
    return replace(policies, documents=documents)


def made(filters: Made) -> policy_set.Made:
    """Istio's filters by what they are for."""
    custom = [each for each in filters.http if each["name"] != _JWT and _is_custom(each["typedConfig"])]
    found = [each["typedConfig"] for each in filters.http if each["name"] == _JWT]
    return policy_set.Made(
        custom=custom,
        tokens=_for_route(found[0]) if found else None,
        local=[each for each in filters.http if each["name"] != _JWT and each not in custom],
        tcp=filters.tcp,
        modes=Modes(mode=filters.mode, ports={number: each["mode"] for number, each in filters.ports.items()}),
    )


def _is_custom(config: Json) -> bool:
    policies = (config.get("rules") or {}).get("policies", {})
    return (
        "filterEnabledMetadata" in config
        or config.get("shadowRulesStatPrefix") == _CUSTOM
        or any(name.endswith(_BAD) for name in policies)
    )


def _for_route(config: Json) -> Json:
    """The filter of a workload as one that a route enables, its keys fetched from where the judge has them."""
    (rule,) = config["rules"]
    assert rule["match"] == {"prefix": "/"}, rule
    providers = {name: _with_keys(each) for name, each in config["providers"].items()}
    kept = {name: value for name, value in config.items() if name != "rules"}
    return {**kept, "providers": providers, "requirementMap": {jwt_authn.REQUIREMENT: rule["requires"]}}


def _with_keys(provider: Json) -> Json:
    """See `jwt_authn`: fetched before the listener serves, and discovered where the issuer would tell."""
    remote: Any = provider.get("remoteJwks")
    if remote is None:
        return provider
    uri = remote["httpUri"]["uri"]
    if uri.endswith(_DISCOVERED):
        uri = key_server.uri(tokens.number(provider["issuer"]), 0)
    place = {"uri": uri, "cluster": jwt_authn.KEYS, "timeout": "5s"}
    return {**provider, "remoteJwks": {"httpUri": place, "cacheDuration": "300s", "asyncFetch": {}}}
