"""RequestAuthentication: whose tokens count, where they are, what they produce.

Source: security.istio.io RequestAuthentication and JWTRule; ValidateRequestAuthentication in Istio's
pkg/config/validation.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import yaml

from countersign.core.binding import Binding
from countersign.core.jwt_rule import ClaimToHeader, HeaderLocation, InlineKeys, JwtRule, KeySource, RemoteKeys
from countersign.policy.problems import Code, did_you_mean
from countersign.policy.reading.document import (
    Report,
    is_null,
    read_bool,
    read_fields,
    read_list,
    read_string,
    read_strings,
)
from countersign.policy.resources import Meta, RequestAuthentication

_SPEC: Final = frozenset({"selector", "targetRef", "targetRefs", "jwtRules"})
_RULE: Final = frozenset(
    {
        "issuer", "audiences", "jwks", "jwksUri", "jwks_uri", "fromHeaders", "fromParams", "fromCookies",
        "outputPayloadToHeader", "outputClaimToHeaders", "forwardOriginalToken", "timeout", "spaceDelimitedClaims",
        "presence",
    }
)  # fmt: skip
_PRESENCE: Final = frozenset({"OPTIONAL", "REQUIRED"})
_DISCOVERY: Final = "/.well-known/openid-configuration"  # OpenID Connect Discovery 1.0, section 4
_ALWAYS_SPLIT: Final = frozenset({"scope", "permission"})
_HEADER_NAME: Final = re.compile(r"[-_A-Za-z0-9]+")
_URI: Final = re.compile(
    r"https?://(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?"
    r"(?:[/?](?:[\x21-\x24\x26-\x7e]|%[0-9A-Fa-f]{2})*)?"
)
_MAX_RULES: Final = 4096
_MAX_SPLIT: Final = 64  # claims of one rule
_MAX_URI: Final = 2048
_MAX_PORT: Final = 65535
_DURATION: Final = re.compile(r"([0-9]{1,9})(?:\.([0-9]{1,3})0*)?s|([0-9]{1,9})(ms|m|h)")
_SECONDS: Final = {"ms": 0.001, "m": 60.0, "h": 3600.0}


CheckJwks = Callable[[str], str]  # what is wrong with an inline key set; empty if nothing


def parse_request_authentication(
    meta: Meta, spec: yaml.Node | None, report: Report, check_jwks: CheckJwks, bindings: tuple[Binding, ...] = ()
) -> RequestAuthentication:
    """Read ``spec``; what is wrong goes to the report. ``bindings`` hold for the tokens of every rule."""
    members = {} if spec is None or is_null(spec) else read_fields(spec, report, _SPEC, "spec")
    if is_null(members.get("jwtRules")):
        return RequestAuthentication(meta=meta)
    nodes = read_list(members["jwtRules"], report, "jwtRules")
    if len(nodes) > _MAX_RULES:
        report.error(nodes[_MAX_RULES], Code.INVALID_VALUE, f"more than {_MAX_RULES} rules", "split the resource")
    rules = [_rule(meta, node, report, check_jwks) for node in nodes]
    found = (replace(rule, bindings=bindings) for rule in rules if rule is not None)
    return RequestAuthentication(meta=meta, rules=tuple(found))


def _rule(meta: Meta, node: yaml.Node, report: Report, check_jwks: CheckJwks) -> JwtRule | None:
    members = {
        name: value for name, value in read_fields(node, report, _RULE, "jwtRules").items() if not is_null(value)
    }
    reader = _Reader(members, report)
    keys = _keys(reader, reader.duration("timeout", 5.0), report)
    if isinstance(keys, InlineKeys) and (wrong := check_jwks(keys.jwks)):
        report.error(members["jwks"], Code.INVALID_VALUE, f"`jwks`: {wrong}", "a JSON object with a list `keys`")
    issuer = reader.text("issuer")
    if not issuer and (not isinstance(keys, RemoteKeys) or keys.discover):
        report.error(
            members.get("issuer", node),
            Code.MISSING_FIELD,
            "`issuer` is empty",
            "only `jwksUri` may go without an issuer",
        )
    if keys is None:
        return None
    return JwtRule(
        issuer=issuer,
        keys=keys,
        audiences=reader.texts("audiences"),
        from_headers=reader.header_locations(),
        from_params=reader.texts("fromParams"),
        from_cookies=reader.texts("fromCookies"),
        output_payload_to_header=reader.header_name("outputPayloadToHeader"),
        output_claim_to_headers=reader.claims_to_headers(),
        forward_original_token="forwardOriginalToken" in members
        and read_bool(members["forwardOriginalToken"], report, "forwardOriginalToken"),
        required=reader.required(),
        space_delimited_claims=_ALWAYS_SPLIT | reader.split_claims(),
        policy=f"{meta.namespace}/{meta.name}",
        source=report.source(node),
    )


def _keys(reader: "_Reader", timeout: float, report: Report) -> KeySource | None:
    members = reader.members
    uri_node = members.get("jwksUri", members.get("jwks_uri"))
    if "jwksUri" in members and "jwks_uri" in members:
        report.error(members["jwks_uri"], Code.DUPLICATE_KEY, "both `jwksUri` and `jwks_uri`", "keep one of them")
    if "jwks" in members and uri_node is not None:
        report.error(uri_node, Code.INVALID_VALUE, "both `jwks` and `jwksUri`", "keep one of them")
        return None
    if "jwks" in members:
        text = read_string(members["jwks"], report, "jwks")
        return None if text is None else InlineKeys(text)
    if uri_node is None:
        return _discovered(reader, timeout, report)
    uri = read_string(uri_node, report, "jwksUri")
    if uri is None:
        return None
    if not _is_uri(uri):
        report.error(uri_node, Code.INVALID_VALUE, "`jwksUri` is no http or https URL with a host", "https://host/path")
        return None
    return RemoteKeys(uri, timeout)


def _is_uri(text: str) -> bool:
    match = _URI.fullmatch(text)
    return match is not None and len(text) <= _MAX_URI and (match[1] is None or 0 < int(match[1]) <= _MAX_PORT)


def _discovered(reader: "_Reader", timeout: float, report: Report) -> KeySource | None:
    """Without ``jwks`` and ``jwksUri`` the issuer itself says where its keys are."""
    issuer = reader.text("issuer")
    if issuer and not _is_uri(issuer):
        wrong = f"neither `jwks` nor `jwksUri`, and the issuer `{issuer}` is no URL to ask"
        report.error(reader.members["issuer"], Code.MISSING_FIELD, wrong, "name the keys")
    return RemoteKeys(issuer.removesuffix("/") + _DISCOVERY, timeout, discover=True)


class _Reader:
    """The members of one rule, by type."""

    def __init__(self, members: dict[str, yaml.Node], report: Report) -> None:
        self.members = members
        self._report = report

    def text(self, name: str) -> str:
        node = self.members.get(name)
        return "" if node is None else read_string(node, self._report, name) or ""

    def texts(self, name: str) -> tuple[str, ...]:
        if name not in self.members:
            return ()
        items = read_strings(self.members[name], self._report, name)
        for text, node in items:
            if not text:
                self._report.error(node, Code.INVALID_VALUE, f"an empty string in `{name}`")
        return tuple(text for text, _ in items)

    def split_claims(self) -> set[str]:
        claims = self.texts("spaceDelimitedClaims")
        if len(claims) > _MAX_SPLIT:
            where = self.members["spaceDelimitedClaims"]
            wrong = f"more than {_MAX_SPLIT} claims in `spaceDelimitedClaims`"
            self._report.error(where, Code.INVALID_VALUE, wrong, "list those that policies ask for")
        return set(claims)

    def required(self) -> bool:
        text = self.text("presence")
        if "presence" in self.members and text not in _PRESENCE:
            wrong = f"`presence: {text}`"
            self._report.error(self.members["presence"], Code.INVALID_VALUE, wrong, did_you_mean(text, _PRESENCE))
        return text == "REQUIRED"

    def header_name(self, name: str) -> str:
        if name not in self.members:
            return ""
        return self._header(self.members[name], name)

    def _header(self, node: yaml.Node, where: str) -> str:
        text = read_string(node, self._report, where)
        if text is not None and _HEADER_NAME.fullmatch(text) is None:
            self._report.error(
                node, Code.INVALID_VALUE, f"`{text}` is no header name in `{where}`", "letters, digits, - and _"
            )
        return (text or "").lower()

    def header_locations(self) -> tuple[HeaderLocation, ...]:
        if "fromHeaders" not in self.members:
            return ()
        locations = []
        for node in read_list(self.members["fromHeaders"], self._report, "fromHeaders"):
            members = read_fields(node, self._report, frozenset({"name", "prefix"}), "fromHeaders")
            if is_null(members.get("name")):
                self._report.error(node, Code.MISSING_FIELD, "`fromHeaders` entry without `name`")
                continue
            prefix = members.get("prefix")
            text = None if prefix is None or is_null(prefix) else read_string(prefix, self._report, "prefix")
            locations.append(HeaderLocation(self._header(members["name"], "fromHeaders.name"), text or ""))
        return tuple(locations)

    def claims_to_headers(self) -> tuple[ClaimToHeader, ...]:
        if "outputClaimToHeaders" not in self.members:
            return ()
        outputs = []
        for node in read_list(self.members["outputClaimToHeaders"], self._report, "outputClaimToHeaders"):
            members = read_fields(node, self._report, frozenset({"header", "claim"}), "outputClaimToHeaders")
            claim = read_string(members["claim"], self._report, "claim") if "claim" in members else ""
            if "header" not in members or claim == "":
                self._report.error(
                    node, Code.MISSING_FIELD, "`outputClaimToHeaders` entry wants both `header` and `claim`"
                )
            elif claim is not None:
                outputs.append(ClaimToHeader(self._header(members["header"], "outputClaimToHeaders.header"), claim))
        return tuple(outputs)

    def duration(self, name: str, default: float) -> float:
        if name not in self.members:
            return default
        text = read_string(self.members[name], self._report, name)
        if text is None:
            return default
        match = _DURATION.fullmatch(text)
        seconds = 0.0
        if match is not None and match[1] is not None:
            seconds = float(f"{match[1]}.{match[2] or 0}")
        elif match is not None:
            seconds = float(match[3]) * _SECONDS[match[4]]
        if seconds <= 0:
            self._report.error(
                self.members[name],
                Code.INVALID_VALUE,
                f"`{name}: {text}` is no positive duration",
                "such as 5s or 250ms",
            )
            return default
        return seconds
