"""Moves the files of `envoy/` from the addresses and paths of docker compose to those of this run.

Nothing else changes, and an address or path that the map does not know is an error: so the demo runs what compose
runs, and neither can drift away from the other unseen.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from countersign.mesh.process import MeshError

JWKS_URI: Final = "http://issuer:8000/jwks.json"  # the one address in envoy/policies


class RelocationError(MeshError):
    """A file says something that the map does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """``addresses``: ``host:port`` -> (host, port). ``paths``: leading directory -> directory."""

    addresses: Mapping[str, tuple[str, int]]
    paths: Mapping[str, Path]


def relocate(configuration: str, places: Places) -> str:
    """An Envoy configuration (YAML), relocated (JSON)."""
    return json.dumps(_walk(yaml.safe_load(configuration), places), indent=2)


def relocate_policies(source: Path, target: Path, jwks_uri: str) -> None:
    """Copy the policy files line by line, so that ``file:line`` still points at the committed text."""
    for file in sorted(source.glob("*.yaml")):
        text = file.read_text(encoding="utf-8").replace(JWKS_URI, jwks_uri)
        for document in yaml.safe_load_all(text):
            rules = document["spec"].get("jwtRules", []) if document["kind"] == "RequestAuthentication" else []
            for rule in rules:
                if rule.get("jwksUri", jwks_uri) != jwks_uri:
                    raise RelocationError(f"{file.name}: no place for the jwksUri `{rule['jwksUri']}`")
        (target / file.name).write_text(text, encoding="utf-8")


def _walk(node: object, places: Places) -> object:
    if isinstance(node, dict):
        if {"address", "port_value"} <= node.keys():
            return _address(node, places)
        # A route's `match` speaks of requests; every other absolute path is a file.
        return {key: value if key == "match" else _walk(value, places) for key, value in node.items()}
    if isinstance(node, list):
        return [_walk(element, places) for element in node]
    if isinstance(node, str) and node.startswith("/"):
        return _path(node, places)
    return node


def _address(address: Mapping[str, Any], places: Places) -> dict[str, object]:
    name = f"{address['address']}:{address['port_value']}"
    if name not in places.addresses:
        raise RelocationError(f"no place for the address `{name}`")
    host, port = places.addresses[name]
    return {**address, "address": host, "port_value": port}


def _path(path: str, places: Places) -> str:
    for prefix, directory in places.paths.items():
        if path.startswith(f"{prefix}/"):
            return f"{directory}{path.removeprefix(prefix)}"
    raise RelocationError(f"no place for the path `{path}`")
