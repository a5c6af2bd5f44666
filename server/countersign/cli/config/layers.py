"""One value for each setting: of its flag, else its environment variable, else the file, else its default."""

import argparse
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from countersign.cli.config.file import ConfigFile, read_config
from countersign.cli.config.flags import Kind, Setting, ValueTextError
from countersign.edge.keys.access import IssuerKeys
from countersign.settings import SettingsError

_CONFIG_VARIABLE: Final = "COUNTERSIGN_CONFIG"
_FLAG: Final = re.compile(r"--[a-z][a-z-]*")
_SWITCH: Final = {"true": True, "false": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Layered:
    """The settings as ``arguments``, as if all of them had been flags, and where those came from that were not."""

    arguments: argparse.Namespace
    issuers: tuple[IssuerKeys, ...]
    places: Mapping[str, str]  # by flag

    def placed(self, message: str) -> str:
        """A message about flags, with where their values stand if that is not the command line."""
        named = {flag: self.places[flag] for flag in _FLAG.findall(message) if flag in self.places}
        return message + "".join(f"; {flag} is from {place}" for flag, place in named.items())


def layered(arguments: argparse.Namespace, environment: Mapping[str, str]) -> Layered:
    """Add to the flags that were given what the environment and the file say, and the defaults.

    Raise OSError or `ConfigError` for the file, `SettingsError` for a variable. A variable that names no setting is
    left alone: Kubernetes makes some for a service that is called countersign.
    """
    settings: Mapping[str, Setting] = arguments.settings
    path = getattr(arguments, "config", None) or environment.get(_CONFIG_VARIABLE)
    file = read_config(Path(path), settings.values()) if path else ConfigFile(values={}, issuers=())
    values: dict[str, Any] = {}
    places: dict[str, str] = {}
    for name, setting in settings.items():
        if hasattr(arguments, name):
            values[name] = getattr(arguments, name)
        elif setting.variable in environment:
            values[name] = _from_text(setting, environment[setting.variable])
            places[setting.flag] = setting.variable
        elif name in file.values:
            values[name] = file.values[name].value
            places[setting.flag] = file.values[name].place
        else:
            values[name] = setting.default
    return Layered(arguments=argparse.Namespace(**values), issuers=file.issuers, places=places)


def _switch(text: str) -> bool:
    if text not in _SWITCH:
        raise ValueTextError(f"`{text}` is neither true nor false")
    return _SWITCH[text]


def _from_text(setting: Setting, text: str) -> Any:  # noqa: ANN401 (whatever type it has)
    try:
        match setting.kind:
            case Kind.SWITCH:
                return _switch(text)
            case Kind.ONE:
                return setting.read(text)
            case Kind.MANY | Kind.PAIRS:
                return [setting.read(item) for item in text.split(",")] if text else []
    except ValueTextError as error:
        raise SettingsError(f"{setting.variable}: {error}") from error
