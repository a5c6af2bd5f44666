"""RequestAuthentications of one workload as Envoy's `jwt_authn` filter: providers, and the tree of requirements.

Input is plain YAML data. Source: istio.io "RequestAuthentication", Envoy's jwt_authn; policy_applier.go says the tree.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from tests.envoy.judge import key_server, tokens
from tests.envoy.judge.matchers import Json

TYPE: Final = "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication"
REQUIREMENT: Final = "any"
KEYS: Final = "keys"  # the cluster that serves them
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
        **_keys(rule),
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


def _keys(rule: Json) -> Json:
    """The keys, or where they are: without a word of them at the issuer, which Istio itself asks for the place."""
    if "jwks" in rule:
        return {"local_jwks": {"inline_string": rule["jwks"]}}
    uri = rule.get("jwksUri") or key_server.uri(tokens.number(rule["issuer"]), 0)
    place = {"uri": uri, "cluster": KEYS, "timeout": "5s"}
    # Fetched before the listener serves: while a request waits for keys, Envoy goes on through the tree of requirements
    # and may write a token's outputs twice.
    return {"remote_jwks": {"http_uri": place, "cache_duration": "300s", "async_fetch": {}}}


def requirement(rules: Mapping[str, Json]) -> Json:
    """Any provider's tokens, or no token for each of them, unless its rule requires one."""
    either = [_unless_missing(name, rule) for name, rule in rules.items()]
    if len(either) == 1:
        return either[0]
    missing = {"requires_all": {"requirements": either}}
    return {"requires_any": {"requirements": [*({"provider_name": name} for name in rules), missing]}}


def _unless_missing(name: str, rule: Json) -> Json:
    if rule.get("presence") == "REQUIRED":
        return {"provider_name": name}
    return {"requires_any": {"requirements": [{"provider_name": name}, {"allow_missing": {}}]}}


def filter_config(rules: Sequence[Json]) -> Json:
    """The filter of one workload; a route enables it by the name of its requirement."""
    named = {f"origins-{index}": rule for index, rule in enumerate(rules)}
    return {
        "@type": TYPE,
        "providers": {name: provider(rule) for name, rule in named.items()},
        "requirement_map": {REQUIREMENT: requirement(named)},
        "bypass_cors_preflight": True,
    }
