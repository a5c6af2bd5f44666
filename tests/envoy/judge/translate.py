"""AuthorizationPolicies of one workload as the filters that Istio gives to Envoy: the reference of the judge.

Input is plain YAML data. Source: semantics of istio.io "AuthorizationPolicy"; the golden files of Istio's own
translation (`tests/envoy/test_goldens.py`) say whether this is it.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from tests.envoy.judge import providers
from tests.envoy.judge.matchers import Json, UntranslatableError
from tests.envoy.judge.providers import ProviderError
from tests.envoy.judge.rules import Place, Target, rbac_policy

_HTTP_RBAC: Final = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC"
_TCP_RBAC: Final = "type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC"
_TRUE: Final = frozenset({"1", "t", "T", "TRUE", "true", "True"})  # Go's strconv.ParseBool


def filters(policies: Sequence[Json], target: Target | None = None) -> list[Json]:
    """Every filter, in the order of Istio's chain: CUSTOM, AUDIT, DENY, ALLOW."""
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
    """For each provider what its policies match, and who is then asked; if nobody can be, that is denied."""
    names = sorted({_spec(policy)["provider"]["name"] for policy in policies})
    found = []
    for name in names:
        own = [policy for policy in policies if _spec(policy)["provider"]["name"] == name]
        rules = _policies(own, "CUSTOM", target)
        try:
            asks = providers.ext_authz(name, target.providers if len(names) == 1 else {}, tcp=target.tcp)
        except ProviderError:
            found.append(
                _filter({"rules": _rbac("DENY", _renamed(rules, name, "-deny-due-to-bad-CUSTOM-action"))}, target)
            )
            continue
        if asks is not None:
            shadow = _rbac("DENY", _renamed(rules, name, ""))
            found += [_filter({"shadowRules": shadow, "shadowRulesStatPrefix": providers.STAT_PREFIX}, target), asks]
    return found


def _renamed(rules: Json, provider: str, suffix: str) -> Json:
    return {f"{providers.POLICY_PREFIX}{provider}-{name}{suffix}": rule for name, rule in rules.items()}


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
                found[f"{name}[{index}]"] = rbac_policy(rule, Place(target, action, meta["namespace"]))
            except UntranslatableError:
                continue  # the whole rule is dropped (only from an ALLOW)
    return found
