"""One value of a policy as Envoy's RBAC filter matches it.

Part of the judge: written from Istio's documents and checked against its golden files, and on purpose without a line
of `countersign.policy`, so that the two can disagree.
"""

from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any, Final

Json = dict[str, Any]

NOTHING: Final[Json] = {"notId": {"any": True}}  # matches no request
JWT_METADATA: Final = "envoy.filters.http.jwt_authn"
_TEMPLATE: Final = "type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig"
_GO_SPECIAL: Final = frozenset(r"\.+*?()|[]{}^$")  # what Go's regexp.QuoteMeta escapes; Python escapes more
_IPV4_BITS: Final = 32
_IPV6_BITS: Final = 128
_MAX_PORT: Final = 65535


class UntranslatableError(ValueError):
    """A value that has no matcher: Istio drops it, or the rule that has it."""


def quote(text: str) -> str:
    """The regular expression of a literal, spelled as Istio spells it."""
    return "".join(f"\\{character}" if character in _GO_SPECIAL else character for character in text)


def string(value: str) -> Json:
    """``*``, ``*suffix``, ``prefix*`` or exact: the first that applies."""
    if value == "*":
        return {"safeRegex": {"regex": ".+"}}
    if value.startswith("*"):
        return {"suffix": value[1:]}
    if value.endswith("*"):
        return {"prefix": value[:-1]}
    return {"exact": value}


def header(name: str, value: str, *, ignore_case: bool = False) -> Json:
    """A header; ``*`` asks only that it is there."""
    if value == "*":
        return {"header": {"name": name, "presentMatch": True}}
    match = string(value) | ({"ignoreCase": True} if ignore_case else {})
    return {"header": {"name": name, "stringMatch": match}}


def host_as_regex(value: str) -> Json:
    """A host for proxies that can ignore case in regular expressions only."""
    if value == "*":
        return header(":authority", value)
    if value.startswith("*"):
        regex = f".*{quote(value[1:])}"
    elif value.endswith("*"):
        regex = f"{quote(value[:-1])}.*"
    else:
        regex = quote(value)
    return {"header": {"name": ":authority", "safeRegexMatch": {"regex": f"(?i){regex}"}}}


def path(value: str) -> Json:
    """The path without its query: a string, or a template of ``{*}`` and ``{**}``."""
    if "{*}" not in value and "{**}" not in value:
        return {"urlPath": {"path": string(value)}}
    template = value.replace("{**}", "**").replace("{*}", "*")
    return {"uriTemplate": {"name": "uri-template", "typedConfig": {"@type": _TEMPLATE, "pathTemplate": template}}}


def port(value: str) -> Json:
    """The port of this side of the connection."""
    if not (value.isascii() and value.isdigit() and int(value) <= _MAX_PORT):
        raise UntranslatableError(f"{value} is no port")
    return {"destinationPort": int(value)}


def cidr(value: str) -> Json:
    """An address, or a block of them; Envoy drops host bits itself."""
    address, slash, length = value.partition("/")
    try:
        bits = _IPV4_BITS if ip_address(address).version == 4 else _IPV6_BITS
        prefix = int(length) if slash else bits
    except ValueError as error:
        raise UntranslatableError(f"{value} is no address") from error
    if not 0 <= prefix <= bits:
        raise UntranslatableError(f"{value} is no block of addresses")
    return {"addressPrefix": address, "prefixLen": prefix}


def peer(match: Json) -> Json:
    """A name in the peer's certificate."""
    return {"authenticated": {"principalName": match}}


def principal(value: str) -> Json:
    """``principals``: a SPIFFE ID without its scheme."""
    if value == "*":
        return peer(string(value))
    if value.startswith("*"):
        return peer({"safeRegex": {"regex": f"spiffe://.*{quote(value[1:])}"}})
    return peer(string(f"spiffe://{value}"))


def namespace(value: str) -> Json:
    """``namespaces``: every ``*`` is any text."""
    middle = ".*".join(quote(part) for part in value.split("*"))
    return peer({"safeRegex": {"regex": f".*/ns/{middle}/.*"}})


def service_account(value: str, policy_namespace: str) -> Json:
    """``serviceAccounts``: ``namespace/name``, or a name in the policy's own namespace."""
    first, slash, second = value.partition("/")
    owner, name = (first, second) if slash else (policy_namespace, first)
    return peer({"safeRegex": {"regex": f"spiffe://.+/ns/{quote(owner)}/(.+/|)sa/{quote(name)}(/.+)?"}})


def trust_domain(value: str) -> Json:
    """``trustDomains``: the first part of a SPIFFE ID."""
    if value == "*":
        return peer({"prefix": "spiffe://"})
    if "*" in value:
        middle = "[^/]*".join(quote(part) for part in value.split("*"))
        return peer({"safeRegex": {"regex": f"spiffe://{middle}/.*"}})
    return peer({"prefix": f"spiffe://{value}/"})


def metadata(namespace_: str, keys: Sequence[str], value: Json) -> Json:
    """Something that an earlier filter left about this request."""
    return {"metadata": {"filter": namespace_, "path": [{"key": key} for key in keys], "value": value}}


def any_value(values: Sequence[Json]) -> Json:
    """Any of several values of metadata."""
    return values[0] if len(values) == 1 else {"orMatch": {"valueMatchers": list(values)}}


def claim(keys: Sequence[str], values: Sequence[str]) -> Json:
    """A claim that is one of the texts, or a list that has one of them."""
    texts = any_value([{"stringMatch": string(value)} for value in values])
    return metadata(JWT_METADATA, ["payload", *keys], any_value([{"listMatch": {"oneOf": texts}}, texts]))


def experimental(namespace_: str, key: str, values: Sequence[str]) -> Json:
    """``experimental.envoy.filters...``: ``[v]`` is an element of a list, ``v`` a text."""
    return metadata(namespace_, [key], any_value([_experimental(value) for value in values]))


def _experimental(value: str) -> Json:
    if value.startswith("[") and value.endswith("]"):
        return {"listMatch": {"oneOf": {"stringMatch": string(value.strip("[]"))}}}
    return {"stringMatch": string(value)}


def request_principal(value: str) -> Json:
    """``requestPrincipals``: issuer and subject, cut at the last slash."""
    issuer, subject = _issuer_and_subject(value)
    ids = [
        metadata(JWT_METADATA, ["payload", name], {"stringMatch": match})
        for name, match in (("iss", issuer), ("sub", subject))
    ]
    return {"andIds": {"ids": ids}}


def _issuer_and_subject(value: str) -> tuple[Json, Json]:
    """One ``*`` counts, at either end of the whole value; the other half is exact."""
    issuer, slash, subject = value.rpartition("/")
    if value.startswith("*"):
        return (string(issuer), {"exact": subject}) if slash else (string("*"), string(value))
    if value.endswith("*"):
        prefix: Json = string("*") if subject == "*" else {"prefix": subject[:-1]}
        return ({"exact": issuer}, prefix) if slash else (string(value), string("*"))
    return ({"exact": issuer}, {"exact": subject}) if slash else ({"exact": value}, {"exact": ""})
