"""Typed messages as the YAML or JSON that Envoy reads."""

import json
import re
from typing import Any, Final

import betterproto2
import yaml

_DURATION: Final = re.compile(r"([0-9]+)\.([0-9]*?)0+s")
_SAID: Final = ("failure_mode_allow", "clear_route_cache")  # the default, which a reader wants to see
_INT64: Final = "host_selection_retry_max_attempts"  # JSON writes 64 bits as a string


class _Plain(yaml.SafeDumper):
    """No anchors: what stands twice is written twice."""

    def ignore_aliases(self, _: object) -> bool:
        return True


def fields_of(message: betterproto2.Message) -> dict[str, Any]:
    """A message as an object with the fields' own names, without what is default."""
    format_ = betterproto2.OutputFormat.PROTO_JSON
    found: dict[str, Any] = _plain(message.to_dict(output_format=format_, casing=betterproto2.Casing.SNAKE))
    return found


def as_yaml(document: object) -> str:
    """A document as YAML."""
    return yaml.dump(document, Dumper=_Plain, sort_keys=False, width=120)


def as_json(document: object) -> str:
    """A document as JSON."""
    return json.dumps(document, indent=2) + "\n"


def _plain(value: Any) -> Any:  # noqa: ANN401 (JSON)
    if isinstance(value, dict):
        members = {name.replace("_5_xx", "_5xx"): _plain(member) for name, member in value.items()}
        if str(members.get("@type", "")).endswith(".ext_authz.v3.ExtAuthz"):
            members |= {name: False for name in _SAID if name not in members}
        if _INT64 in members:
            members[_INT64] = int(members[_INT64])
        if members.get("healthy_panic_threshold") == {}:
            members["healthy_panic_threshold"] = {"value": 0}
        return members
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, str) and (match := _DURATION.fullmatch(value)) is not None:
        return f"{match[1]}.{match[2]}s" if match[2] else f"{match[1]}s"
    return value
