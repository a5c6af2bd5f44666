"""A policy set as Envoy's own filters: what each of them is told on the set's route, and in which order they stand.

The order is Istio's: what there would be no connection for, CUSTOM, tokens, AUDIT, DENY, ALLOW.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from tests.envoy.judge import jwt_authn, peers
from tests.envoy.judge.matchers import NOTHING, Json
from tests.envoy.judge.policy_set import MESH, PORTS, PROVIDERS, REFUSING, PolicySet
from tests.envoy.judge.rules import Target
from tests.envoy.judge.translate import filters

HTTP: Final = "type.googleapis.com/envoy.extensions.filters.http"
_JWT: Final = "envoy.filters.http.jwt_authn"
_PEERS: Final = "rbac.peers"
_CUSTOM: Final = ("rbac.custom.0", "rbac.custom.1")  # one for each provider that policies name
_ASK: Final = f"ext_authz.{REFUSING}"
_BY_ACTION: Final = {"LOG": "rbac.audit", "DENY": "rbac.deny", "ALLOW": "rbac.allow"}
_OFF: Final = {"disabled": True}  # a route enables what it wants


def http_filters(sets: Sequence[PolicySet]) -> Iterator[Json]:
    """The filters of the connection manager, for all sets."""
    yield from (_rbac(name) for name in (_PEERS, *_CUSTOM))
    yield {"name": _ASK, "typed_config": _provider(), **_OFF}
    for each in sets:
        tokens = _tokens(each)
        if tokens:
            yield {"name": f"{_JWT}.{each.name}", "typed_config": tokens, **_OFF}
    yield from (_rbac(name) for name in _BY_ACTION.values())


def _rbac(name: str) -> Json:
    return {"name": name, "typed_config": {"@type": f"{HTTP}.rbac.v3.RBAC"}, **_OFF}


def _provider() -> Json:
    """The filter that the translator makes for the provider; the policies that name it matter to RBAC only."""
    spec = {"action": "CUSTOM", "provider": {"name": REFUSING}, "rules": [{}]}
    _, asks = filters([{"metadata": {"name": "", "namespace": ""}, "spec": spec}], Target(providers=PROVIDERS))
    found: Json = asks["typedConfig"]
    return found


def per_route(policies: PolicySet, *, identified: bool) -> Json:
    """The configuration of each filter on the route of a set. Without ``identified`` the peer counts as nobody."""
    ports = list(PORTS.values())
    config: Json = {_PEERS: _settings(peers.rbac(policies.modes(), ports, MESH))}
    if _tokens(policies):
        requirement = {"requirement_name": jwt_authn.REQUIREMENT}
        config[f"{_JWT}.{policies.name}"] = {"@type": f"{HTTP}.jwt_authn.v3.PerRouteConfig", **requirement}
    custom, local = _authorization(policies, identified=identified)
    rbac = iter(_CUSTOM)
    for each in custom:
        if each["name"].endswith("ext_authz"):
            extensions = {"workload.namespace": REFUSING, "workload.labels": ""}
            config[_ASK] = asked(extensions)
        else:
            config[next(rbac)] = _settings(each["typedConfig"])
    for each in local:
        rules = each["typedConfig"].get("rules") or each["typedConfig"]["shadowRules"]
        config[_BY_ACTION[rules.get("action", "ALLOW")]] = _settings(each["typedConfig"])
    return config


def _tokens(policies: PolicySet) -> Json | None:
    if policies.made is not None:
        return policies.made.tokens
    rules = jwt_authn.rules_of(policies.applying("RequestAuthentication"))
    return jwt_authn.filter_config(rules) if rules else None


def _authorization(policies: PolicySet, *, identified: bool) -> tuple[Sequence[Json], Sequence[Json]]:
    """The filters of CUSTOM, and those of the other actions."""
    if policies.made is not None:
        found = policies.made.custom, policies.made.local
        return found if identified else (unidentified(found[0]), unidentified(found[1]))
    target = Target(mesh=MESH, providers=PROVIDERS, identified=identified)
    authorization = policies.applying("AuthorizationPolicy")
    custom = [each for each in authorization if each["spec"].get("action") == "CUSTOM"]
    return filters(custom, target), filters([each for each in authorization if each not in custom], target)


def unidentified(value: Any) -> Any:
    """Filters for a peer that counts as nobody."""
    if isinstance(value, dict):
        return NOTHING if "authenticated" in value else {name: unidentified(each) for name, each in value.items()}
    return [unidentified(each) for each in value] if isinstance(value, list) else value


def refused() -> Json:
    """The same for a route that denies everything."""
    anything = {"permissions": [{"any": True}], "principals": [{"any": True}]}
    return {_PEERS: _settings({"rules": {"action": "DENY", "policies": {"everything": anything}}})}


def asked(extensions: Any) -> Json:
    """What a route tells an ext_authz filter to send along."""
    return {"@type": f"{HTTP}.ext_authz.v3.ExtAuthzPerRoute", "check_settings": {"context_extensions": extensions}}


def _settings(rbac: Json) -> Json:
    told = {name: value for name, value in rbac.items() if name != "@type"}
    return {"@type": f"{HTTP}.rbac.v3.RBACPerRoute", "rbac": told}
