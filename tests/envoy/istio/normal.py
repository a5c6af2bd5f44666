"""Filters in a form in which those that decide alike are equal: order, repetition and spelling left out.

Alternatives and conditions are sets; one of one is itself; blocks of addresses have no host bits.
"""

import ipaddress
import json
import re
from collections.abc import Callable, Sequence
from typing import Any, Final

from tests.envoy.judge.matchers import Json

_NAMED: Final = frozenset({"policies", "providers"})  # whose members' names are names, not fields
_ALTERNATIVES: Final = {"orIds": "ids", "orRules": "rules", "orMatch": "valueMatchers"}
_CONDITIONS: Final = {"andIds": "ids", "andRules": "rules"}
_PLACES: Final = ("fromHeaders", "fromParams", "fromCookies", "audiences")  # of a token: any of them


def normal(value: Any) -> Any:
    """The normal form of a filter, or of a part of one."""
    if isinstance(value, list):
        return [normal(each) for each in value]
    if not isinstance(value, dict):
        return value
    found = {_camel(name): _member(_camel(name), member) for name, member in value.items()}
    if "addressPrefix" in found:
        return {
            "block": str(ipaddress.ip_network(f"{found['addressPrefix']}/{found.get('prefixLen', 0)}", strict=False))
        }
    for name, inner in (*_ALTERNATIVES.items(), *_CONDITIONS.items()):
        if name in found:
            members = _flat(found[name][inner], name)
            members = _uncovered(members) if name in _ALTERNATIVES else members
            return members[0] if len(members) == 1 else {name: members}
    return found


def provider(value: Json) -> Json:
    """A provider of tokens without what says nothing, and without the place of its keys."""
    found: Json = normal(value)
    for place in found.get("fromHeaders", ()):
        place.setdefault("valuePrefix", "")
    said = {name: member for name, member in found.items() if member and name not in ("localJwks", "remoteJwks")}
    return said | {name: sorted(said[name], key=_text) for name in _PLACES if name in said}


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def _member(name: str, member: Any) -> Any:
    if name in _NAMED and isinstance(member, dict):
        each = provider if name == "providers" else _rule
        return {own: each(value) for own, value in member.items()}
    return normal(member)


def _rule(value: Json) -> Json:
    """A policy of RBAC: permissions and principals are alternatives."""
    found: Json = normal(value)
    return {name: _flat(members, "") for name, members in found.items()}


def _flat(members: Sequence[Any], name: str) -> list[Any]:
    """The members, those of the same kind opened, each once, in one order."""
    texts: dict[str, Any] = {}
    for member in members:
        for each in member.get(name, (member,)):
            texts[_text(each)] = each
    return [texts[text] for text in sorted(texts)]


def _uncovered(members: Sequence[Any]) -> list[Any]:
    """Alternatives without names of peers that another one matches anyway.

    Istio adds aliases once for each of a rule's sources, and so adds those that a pattern already stands for.
    """
    patterns = [re.compile(pattern) for each in members if (pattern := _name(each, "safeRegex").get("regex"))]
    return [each for each in members if not any(map(_matcher(_name(each, "").get("exact")), patterns))]


def _name(member: Any, form: str) -> Json:
    found: Json = member.get("authenticated", {}).get("principalName", {})
    return found.get(form, {}) if form else found


def _matcher(name: str | None) -> Callable[[re.Pattern[str]], bool]:
    return lambda pattern: name is not None and pattern.fullmatch(name) is not None


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
