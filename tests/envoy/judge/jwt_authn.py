"""RequestAuthentications of one workload as Envoy's `jwt_authn` filter: providers, and the tree of requirements.

Input is plain YAML data. Source: istio.io "RequestAuthentication", Envoy's jwt_authn; policy_applier.go says the tree.
"""

from collections.abc import Sequence
from typing import Final

from tests.envoy.judge.matchers import Json

TYPE: Final = "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication"
REQUIREMENT: Final = "any"
_ALWAYS_SPLIT: Final = frozenset({"scope", "permission"})


def rules_of(policies: Sequence[Json]) -> list[Json]:
    """Every rule that applies, in the order in which Envoy tries them."""
    rules = [rule for policy in policies for rule in (policy.get("spec") or {}).get("jwtRules") or ()]
    return sorted(rules, key=lambda rule: str(rule.get("issuer", "")))


def provider(rule: Json) -> Json:
    """One rule as a provider."""
    split = _ALWAYS_SPLIT | set(rule.get("spaceDelimitedClaims") or ())
    return {
        "issuer": rule.get("issuer", ""),
        "audiences": rule.get("audiences") or [],
        "local_jwks": {"inline_string": rule["jwks"]},
        "forward": rule.get("forwardOriginalToken", False),
        "forward_payload_header": rule.get("outputPayloadToHeader", ""),
        "claim_to_headers": [
            {"header_name": each["header"], "claim_name": each["claim"]}
            for each in rule.get("outputClaimToHeaders") or ()
        ],
        "from_headers": [
            {"name": each["name"], "value_prefix": each.get("prefix", "")} for each in rule.get("fromHeaders") or ()
        ],
        "from_params": rule.get("fromParams") or [],
        "from_cookies": rule.get("fromCookies") or [],
        "payload_in_metadata": "payload",
        "normalize_payload_in_metadata": {"space_delimited_claims": sorted(split)},
    }


def requirement(names: Sequence[str]) -> Json:
    """Any provider's tokens, or no token for each of them."""
    if len(names) == 1:
        return _or_missing(names[0])
    missing = {"requires_all": {"requirements": [_or_missing(name) for name in names]}}
    return {"requires_any": {"requirements": [*({"provider_name": name} for name in names), missing]}}


def _or_missing(name: str) -> Json:
    return {"requires_any": {"requirements": [{"provider_name": name}, {"allow_missing": {}}]}}


def filter_config(rules: Sequence[Json]) -> Json:
    """The filter of one workload; a route enables it by the name of its requirement."""
    providers = {f"origins-{index}": provider(rule) for index, rule in enumerate(rules)}
    return {
        "@type": TYPE,
        "providers": providers,
        "requirement_map": {REQUIREMENT: requirement(list(providers))},
        "bypass_cors_preflight": True,
    }
