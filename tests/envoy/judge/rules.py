"""One rule of an AuthorizationPolicy as a policy of Envoy's RBAC filter: permissions and principals.

Input is plain YAML data. Source: istio.io "AuthorizationPolicy"; pilot/pkg/security/authz/model says what goes where.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from tests.envoy.judge import matchers
from tests.envoy.judge.matchers import Json, UntranslatableError
from tests.envoy.judge.trust import Mesh, with_aliases, with_trust_domains

# Several values to one matcher, or to none if they are empty; raises for what cannot be said.
Generator = Callable[[Sequence[str]], Json]

_IGNORES_CASE: Final = (1, 11)  # the first proxies whose string matchers do so for headers
_NEWEST: Final = (1, 31)
_CLAIMS: Final = "request.auth.claims"
_BRACKETS: Final = re.compile(r"(?:\[[^\[\]]+\])+")
_PEERS: Final = frozenset({"source.principal", "source.namespace", "source.serviceAccount", "source.trustDomain"})
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
    """What is translated for. ``providers``: MeshConfig's ``extensionProviders``, by name, which CUSTOM may name.

    ``proxy``: the version of Istio's Envoy, major and minor. Without ``identified`` the peer has no identity.
    """

    mesh: Mesh = field(default_factory=Mesh)
    tcp: bool = False
    providers: Mapping[str, Json] = field(default_factory=dict)
    proxy: tuple[int, int] = _NEWEST
    identified: bool = True


@dataclass(frozen=True, slots=True)
class Place:
    """Where a rule stands: what its values mean depends on its policy."""

    target: Target
    action: str
    namespace: str


def rbac_policy(rule: Json, place: Place) -> Json:
    """One rule as a policy of the filter. Raises `UntranslatableError` for an ALLOW with what has no matcher."""
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


def _fields(values: Json | None, names: Mapping[str, str], place: Place) -> list[Json]:
    found = []
    for name, attribute in names.items():
        negated = f"not{name[0].upper()}{name[1:]}"
        found += _field(attribute, (values or {}).get(name), (values or {}).get(negated), place)
    return found


def _field(key: str, values: Sequence[str] | None, not_values: Sequence[str] | None, place: Place) -> list[Json]:
    found = []
    if values and (term := _term(key, values, place)):
        found.append(term)
    if not_values and (term := _term(key, not_values, place)):
        found.append({"notId": term})
    return found


def _term(key: str, values: Sequence[str], place: Place) -> Json | None:
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


def _refuse_on_tcp(key: str, place: Place) -> None:
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


def _one(key: str, value: str, place: Place) -> Json:
    if key.startswith("request.headers"):
        return matchers.header(key.removeprefix("request.headers")[1:-1], value)
    if key in _PEERS and not place.target.identified:
        return matchers.NOTHING
    if key == "source.serviceAccount":
        return matchers.service_account(value, place.namespace)
    if key == "hosts" and place.target.proxy < _IGNORES_CASE:
        return matchers.host_as_regex(value)
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
