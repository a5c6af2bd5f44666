"""`--print-config`: every setting as it counts, and where it is from, in the form that ``--config`` reads."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from countersign.cli.config.flags import Kind, Setting
from countersign.cli.config.layers import DEFAULT, Layered
from countersign.edge.keys.access import IssuerKeys
from countersign.edge.keys.url import without_query

_HEAD: Final = "# The settings that count, and where each is from. --config reads this.\n"
_ENDLESS: Final = 2**31  # columns: one line for each value


def printed(given: Layered, settings: Iterable[Setting], effective: Mapping[str, tuple[Any, str]]) -> str:
    """The text. ``effective`` has by name what stands for a setting that nobody gave, and where that is from.

    Paths are absolute, so that the text says the same wherever it is read. A URL's query is hidden, for there may be
    a secret in it: those of the text are not read back as they were.
    """
    lines = [_HEAD]
    section = ""
    for setting in sorted(settings, key=lambda setting: setting.path[:-1]):  # the sections last
        *above, name = setting.path
        if above and above[0] != section:
            section = above[0]
            lines.append(f"{section}:\n")
        value, origin = getattr(given.arguments, setting.name), given.origins[setting.name]
        if setting.name in effective and origin == DEFAULT:
            value, origin = effective[setting.name]
        lines.append(f"{'  ' if above else ''}{_field(name, _written(setting.kind, value))} # {_comment(origin)}\n")
    if given.issuers:
        lines.append(f"issuers: # {_comment(given.issuers_place)}\n")
        lines += [f"  - {_flow(_issuer(entry))}\n" for entry in given.issuers]
    return "".join(lines)


def _written(kind: Kind, value: Any) -> Any:  # noqa: ANN401 (whatever type the flag has)
    if kind is Kind.PAIRS:
        return dict(value)
    if kind is Kind.MANY:
        return [_text(item) for item in value]
    return _text(value)


def _text(value: Any) -> Any:  # noqa: ANN401
    match value:
        case None | bool() | int():
            return value
        case float():  # the only ones are durations, of whole seconds
            return f"{value:.0f}s"
        case Path():
            return str(value.absolute())
        case _:
            return str(value)


def _issuer(entry: IssuerKeys) -> dict[str, Any]:
    access = entry.access
    members: dict[str, Any] = {
        "issuer": entry.issuer,
        "jwksUri": without_query(entry.jwks_uri),
        "jwksFile": entry.jwks_file and str(entry.jwks_file.absolute()),
        "caFile": access.ca_file and str(access.ca_file.absolute()),
        "proxy": without_query(access.proxy),
        "addresses": list(map(str, access.addresses)),
        "insecureHttp": access.insecure_http,
        "required": entry.required,
    }
    return {name: value for name, value in members.items() if value}


def _field(name: str, value: Any) -> str:  # noqa: ANN401
    return _flow({name: value})[1:-1]


def _flow(value: dict[str, Any]) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=_ENDLESS, allow_unicode=True, sort_keys=False).strip()


def _comment(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)
