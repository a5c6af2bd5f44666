"""AuthorizationPolicies of one workload as the RBAC filters that Istio gives to Envoy: the reference of the judge.

Input is plain YAML data. Source: semantics of istio.io "AuthorizationPolicy"; the golden files of Istio's own
translation (`tests/envoy/test_goldens.py`) say whether this is it.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from tests.envoy.judge import matchers
from tests.envoy.judge.matchers import Json, UntranslatableError
from tests.envoy.judge.trust import Mesh, with_aliases, with_trust_domains

# Several values to one matcher, or to none if they are empty; raises for what cannot be said.
Generator = Callable[[Sequence[str]], Json]

_HTTP_RBAC: Final = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC"
_TCP_RBAC: Final = "type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC"
_TRUE: Final = frozenset({"1", "t", "T", "TRUE", "true", "True"})  # Go's strconv.ParseBool
_CLAIMS: Final = "request.auth.claims"
_BRACKETS: Final = re.compile(r"(?:\[[^\[\]]+\])+")
_ON_PERMISSIONS: Final = ("destination.", "connection.sni", "experimental.")
_SOURCE: Final = {  # in the order of Istio's principals
    "principals": "source.principal",
    "requestPrincipals": "request.auth.principal",
    "serviceAccounts": "source.serviceAccount",
    "namespaces": "source.namespace",
    "trustDomains": "source.trustDomain",
    "remoteIpBlocks": "remote.ip",
    "ipBlocks": "source.ip",
}
_OPERATION: Final = {"hosts": "hosts", "methods": "methods", "paths": "paths", "ports": "destination.port"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is translated for. ``providers``: those that CUSTOM may name, and whether they speak TCP."""

    mesh: Mesh = field(default_factory=Mesh)
    tcp: bool = False
    providers: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Rule:
    """Where a rule stands: what its values mean depends on its policy."""

    target: Target
    action: str
    namespace: str


def filters(policies: Sequence[Json], target: Target | None = None) -> list[Json]:
    """Every RBAC filter, in the order of Istio's chain: CUSTOM, AUDIT, DENY, ALLOW."""
    target = target or Target()
    by_action: dict[str, list[Json]] = {}
    for policy in policies:
        by_action.setdefault(_spec(policy).get("action", "ALLOW"), []).append(policy)
    found = _custom(by_action.get("CUSTOM", []), target)
    for action, name in (("AUDIT", "LOG"), ("DENY", "DENY"), ("ALLOW", "")):
        if by_action.get(action):
            found.append(_enforcing(by_action[action], action, name, target))
    return found


def _spec(policy: Json) -> Json:
    return policy.get("spec") or {}


def _enforcing(policies: Sequence[Json], action: str, name: str, target: Target) -> Json:
    enforced = [policy for policy in policies if not is_dry_run(policy)]
    shadow = [policy for policy in policies if is_dry_run(policy)]
    config: Json = {}
    if enforced:
        config["rules"] = _rbac(name, _policies(enforced, action, target))
    if shadow:
        config["shadowRules"] = _rbac(name, _policies(shadow, action, target))
    prefix = "istio_dry_run_deny_" if shadow and action == "DENY" else "istio_dry_run_allow_"
    return _filter(config | {"shadowRulesStatPrefix": prefix}, target)


def is_dry_run(policy: Json) -> bool:
    """Whether a policy is only reported, never enforced."""
    annotations = policy["metadata"].get("annotations") or {}
    return annotations.get("istio.io/dry-run", "false") in _TRUE


def _custom(policies: Sequence[Json], target: Target) -> list[Json]:
    names = sorted({_spec(policy)["provider"]["name"] for policy in policies})
    found = []
    for provider in names:
        own = [policy for policy in policies if _spec(policy)["provider"]["name"] == provider]
        sound = len(names) == 1 and provider in target.providers
        if sound and target.tcp and not target.providers[provider]:
            continue
        ids = _policies(own, "CUSTOM", target)
        suffix = "" if sound else "-deny-due-to-bad-CUSTOM-action"
        rules = _rbac("DENY", {f"istio-ext-authz-{provider}-{name}{suffix}": rule for name, rule in ids.items()})
        if sound:
            found.append(_filter({"shadowRules": rules, "shadowRulesStatPrefix": "istio_ext_authz_"}, target))
        else:
            found.append(_filter({"rules": rules}, target))
    return found


def _filter(config: Json, target: Target) -> Json:
    if target.tcp:
        typed = {"@type": _TCP_RBAC, "statPrefix": "tcp.", **config}
        return {"name": "envoy.filters.network.rbac", "typedConfig": typed}
    return {"name": "envoy.filters.http.rbac", "typedConfig": {"@type": _HTTP_RBAC, **config}}


def _rbac(action: str, policies: Json) -> Json:
    return ({"action": action} if action else {}) | ({"policies": policies} if policies else {})


def _policies(policies: Iterable[Json], action: str, target: Target) -> Json:
    found = {}
    for policy in policies:
        meta = policy["metadata"]
        name = f"ns[{meta['namespace']}]-policy[{meta['name']}]-rule"
        rules = _spec(policy).get("rules") or []
        if not rules and action == "ALLOW":
            found[f"{name}[0]"] = {
                "permissions": [{"notRule": {"any": True}}],
                "principals": [{"notId": {"any": True}}],
            }
        for index, rule in enumerate(rules):
            try:
                found[f"{name}[{index}]"] = _rule(rule, _Rule(target, action, meta["namespace"]))
            except UntranslatableError:
                continue  # the whole rule is dropped (only from an ALLOW)
    return found


def _rule(rule: Json, place: _Rule) -> Json:
    on_permissions: list[Json] = []
    on_principals: list[Json] = []
    for condition in rule.get("when") or ():
        permission = condition["key"].startswith(_ON_PERMISSIONS)
        found = _field(condition["key"], condition.get("values"), condition.get("notValues"), place)
        (on_permissions if permission else on_principals).extend(found)
    permissions = [
        {"andRules": {"rules": [*_fields(to.get("operation"), _OPERATION, place), *on_permissions]}}
        for to in rule.get("to") or [{}]
    ]
    principals = [
        {"andIds": {"ids": [*_fields(source.get("source"), _SOURCE, place), *on_principals]}}
        for source in rule.get("from") or [{}]
    ]
    for each in permissions:
        each["andRules"]["rules"] = [_as_permission(term) for term in each["andRules"]["rules"]] or [{"any": True}]
    for each in principals:
        each["andIds"]["ids"] = each["andIds"]["ids"] or [{"any": True}]
    return {"permissions": permissions, "principals": principals}


def _as_permission(term: Json) -> Json:
    """A permission is spelled with "rules" where a principal has "ids"."""
    if "notId" in term:
        return {"notRule": _as_permission(term["notId"])}
    if "orIds" in term:
        return {"orRules": {"rules": term["orIds"]["ids"]}}
    return term


def _fields(values: Json | None, names: Mapping[str, str], place: _Rule) -> list[Json]:
    found = []
    for name, attribute in names.items():
        negated = f"not{name[0].upper()}{name[1:]}"
        found += _field(attribute, (values or {}).get(name), (values or {}).get(negated), place)
    return found


def _field(key: str, values: Sequence[str] | None, not_values: Sequence[str] | None, place: _Rule) -> list[Json]:
    found = []
    if values and (term := _term(key, values, place)):
        found.append(term)
    if not_values and (term := _term(key, not_values, place)):
        found.append({"notId": term})
    return found


def _term(key: str, values: Sequence[str], place: _Rule) -> Json | None:
    """The matcher of one field; None if nothing of it can be said. Raises for an ALLOW, which then loses the rule."""
    if key == "source.principal":
        values = with_aliases(values, place.target.mesh)
    if key == "source.trustDomain":
        values = with_trust_domains(values, place.target.mesh)
    try:
        together = _together(key)
        if together is not None:
            _refuse_on_tcp(key, place)
            return together(values)
    except UntranslatableError:
        if place.action == "ALLOW":
            raise
        return None
    found = []
    for value in values:
        try:
            _refuse_on_tcp(key, place)
            found.append(_one(key, value, place))
        except UntranslatableError:
            if place.action == "ALLOW":
                raise
    return {"orIds": {"ids": found}} if found else None


def _refuse_on_tcp(key: str, place: _Rule) -> None:
    if place.target.tcp and (key in ("hosts", "methods", "paths") or key.startswith("request.")):
        raise UntranslatableError(f"{key} on TCP")


def _together(key: str) -> Generator | None:
    """The keys whose values Istio puts into one matcher."""
    if key == "request.auth.audiences":
        return partial(matchers.claim, ["aud"])
    if key == "request.auth.presenter":
        return partial(matchers.claim, ["azp"])
    if key.startswith(_CLAIMS):
        return partial(matchers.claim, claim_path(key.removeprefix(_CLAIMS)))
    if key.startswith("experimental."):
        name, bracket, inner = key.removeprefix("experimental.").removesuffix("]").partition("[")
        if not bracket:
            raise UntranslatableError(f"{key} names no metadata")
        return partial(matchers.experimental, name, inner)
    return None


def claim_path(brackets: str) -> list[str]:
    """``[a][b]`` is a in b; brackets that do not pair are one name."""
    if _BRACKETS.fullmatch(brackets):
        return brackets[1:-1].split("][")
    first, last = brackets.find("["), brackets.rfind("]")
    if first < 0 or last <= first + 1:
        raise UntranslatableError(f"{brackets} names no claim")
    return [brackets[first + 1 : last]]


def _one(key: str, value: str, place: _Rule) -> Json:
    if key.startswith("request.headers"):
        return matchers.header(key.removeprefix("request.headers")[1:-1], value)
    if key == "source.serviceAccount":
        return matchers.service_account(value, place.namespace)
    generate = _ONE.get(key)
    if generate is None:
        raise UntranslatableError(f"{key} is no attribute")
    return generate(value)


def _under(name: str, match: Callable[[str], Json]) -> Callable[[str], Json]:
    return lambda value: {name: match(value)}


_ONE: Final[Mapping[str, Callable[[str], Json]]] = {
    "hosts": partial(matchers.header, ":authority", ignore_case=True),
    "methods": partial(matchers.header, ":method"),
    "paths": matchers.path,
    "destination.port": matchers.port,
    "destination.ip": _under("destinationIp", matchers.cidr),
    "connection.sni": _under("requestedServerName", matchers.string),
    "source.ip": _under("directRemoteIp", matchers.cidr),
    "remote.ip": _under("remoteIp", matchers.cidr),
    "source.principal": matchers.principal,
    "source.namespace": matchers.namespace,
    "source.trustDomain": matchers.trust_domain,
    "request.auth.principal": matchers.request_principal,
}
