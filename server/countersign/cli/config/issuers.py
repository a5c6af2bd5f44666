"""The ``issuers`` of ``countersign.yaml``: the way to an issuer's keys, where the usual one does not do."""

from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Final

import yaml

from countersign.edge.keys.access import Access, IssuerKeys, Network
from countersign.edge.keys.url import HttpUrl, UrlError
from countersign.policy.problems import Code
from countersign.policy.reading.document import (
    Report,
    is_null,
    read_bool,
    read_fields,
    read_list,
    read_string,
    read_strings,
)

_WAYS: Final = ("caFile", "proxy", "addresses", "insecureHttp")
_FIELDS: Final = frozenset({"issuer", "jwksUri", "jwksFile", "required", *_WAYS})


def read_issuers(node: yaml.Node, report: Report, base: Path) -> tuple[IssuerKeys, ...]:
    """Read the list; what is wrong goes to the report. Paths are relative to ``base``."""
    entries: dict[str, IssuerKeys] = {}
    for item in read_list(node, report, "issuers"):
        entry = _issuer(item, report, base)
        if entry is None:
            continue
        if entry.name in entries:
            report.error(item, Code.DUPLICATE_KEY, f"`{entry.name}` is here twice", "keep one of them")
        entries[entry.name] = entry
    return tuple(entries.values())


def _issuer(node: yaml.Node, report: Report, base: Path) -> IssuerKeys | None:
    found = read_fields(node, report, _FIELDS, "issuers")
    if not isinstance(node, yaml.MappingNode):
        return None
    members = {name: value for name, value in found.items() if not is_null(value)}
    names = [name for name in ("issuer", "jwksUri") if name in members]
    if len(names) != 1:
        wrong = "neither `issuer` nor `jwksUri`" if not names else "both `issuer` and `jwksUri`"
        report.error(node, Code.MISSING_FIELD, f"an entry of `issuers` with {wrong}", "say by one whose keys it is for")
        return None
    if len(node.value) == 1:
        report.error(node, Code.MISSING_FIELD, "an entry of `issuers` that says nothing", "add one of " + _listed())
    file = _path(members, "jwksFile", report, base)
    for way in _WAYS:
        if "jwksFile" in members and way in members:
            report.error(members[way], Code.INVALID_VALUE, f"`{way}` beside `jwksFile`: nothing is fetched")
    name = read_string(members[names[0]], report, names[0])
    if not name:
        return None
    if names == ["jwksUri"]:
        _url(name, members["jwksUri"], "jwksUri", report)
    return IssuerKeys(
        name=name,
        issuer=name if names == ["issuer"] else "",
        jwks_uri=name if names == ["jwksUri"] else "",
        jwks_file=file,
        access=Access(
            ca_file=_path(members, "caFile", report, base),
            proxy=_proxy(members, report),
            addresses=_addresses(members, report),
            insecure_http="insecureHttp" in members and read_bool(members["insecureHttp"], report, "insecureHttp"),
        ),
        required="required" in members and read_bool(members["required"], report, "required"),
    )


def _listed() -> str:
    return ", ".join(("jwksFile", *_WAYS, "required"))


def _path(members: Mapping[str, yaml.Node], name: str, report: Report, base: Path) -> Path | None:
    if name not in members:
        return None
    text = read_string(members[name], report, name)
    if text == "":
        report.error(members[name], Code.INVALID_VALUE, f"`{name}` is empty", "a path, relative to this file")
    return base / text if text else None


def _proxy(members: Mapping[str, yaml.Node], report: Report) -> str:
    if "proxy" not in members:
        return ""
    text = read_string(members["proxy"], report, "proxy") or ""
    _url(text, members["proxy"], "proxy", report)
    return text


def _url(text: str, node: yaml.Node, where: str, report: Report) -> None:
    try:
        HttpUrl.parse(text)
    except UrlError as error:
        report.error(node, Code.INVALID_VALUE, f"`{where}` is {error}", "such as https://host:8443/path")


def _addresses(members: Mapping[str, yaml.Node], report: Report) -> tuple[Network, ...]:
    if "addresses" not in members:
        return ()
    networks: list[Network] = []
    texts = read_strings(members["addresses"], report, "addresses")
    if not texts:
        report.error(members["addresses"], Code.INVALID_VALUE, "`addresses` is empty", "leave it out, or list ranges")
    for text, node in texts:
        try:
            networks.append(ip_network(text))
        except ValueError:
            wrong = f"`{text}` is no address or range"
            report.error(node, Code.INVALID_VALUE, wrong, "such as 10.0.0.0/8 or fd00::/8, no bits beyond the prefix")
    return tuple(networks)
