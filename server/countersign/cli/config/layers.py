"""One value for each setting: of its flag, else its environment variable, else the file, else its default."""

import argparse
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from countersign.cli.config.file import ConfigFile, read_config
from countersign.cli.config.flags import Kind, Setting, ValueTextError
from countersign.edge.keys.access import IssuerKeys
from countersign.policy.problems import did_you_mean
from countersign.settings import SettingsError

_CONFIG_VARIABLE: Final = "COUNTERSIGN_CONFIG"
_FLAG: Final = re.compile(r"--[a-z][a-z-]*")
_PREFIX: Final = "COUNTERSIGN_"
_NEAR: Final = 0.9  # of 1: one letter in twenty, or two that have changed places
# https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
_OF_KUBERNETES: Final = re.compile(
    r"_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_[A-Z]+)?)?)\Z"
)
DEFAULT: Final = "default"
_SWITCH: Final = {"true": True, "false": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Layered:
    """The settings as ``arguments``, as if all of them had been flags, and where those came from that were not.

    ``origins`` says it of each by name: the flag, the variable, ``file:line:column``, or ``default``.
    """

    arguments: argparse.Namespace
    issuers: tuple[IssuerKeys, ...]
    issuers_place: str
    places: Mapping[str, str]  # by flag
    origins: Mapping[str, str]

    def placed(self, message: str) -> str:
        """A message about flags, with where their values stand if that is not the command line."""
        named = {flag: self.places[flag] for flag in _FLAG.findall(message) if flag in self.places}
        return message + "".join(f"; {flag} is from {place}" for flag, place in named.items())


def layered(arguments: argparse.Namespace, environment: Mapping[str, str]) -> Layered:
    """Add to the flags that were given what the environment and the file say, and the defaults.

    Raise OSError or `ConfigError` for the file, `SettingsError` for a variable. A variable that is not even nearly a
    setting is left alone: Kubernetes makes some for a service that is called countersign.
    """
    settings: Mapping[str, Setting] = arguments.settings
    _refuse_misspelt(settings.values(), environment)
    path = getattr(arguments, "config", None) or environment.get(_CONFIG_VARIABLE)
    file = read_config(Path(path), settings.values()) if path else ConfigFile(values={}, issuers=())
    values: dict[str, Any] = {}
    places: dict[str, str] = {}
    origins: dict[str, str] = {}
    for name, setting in settings.items():
        if hasattr(arguments, name):
            values[name] = getattr(arguments, name)
            origins[name] = setting.flag
        elif setting.variable in environment:
            values[name] = _from_text(setting, environment[setting.variable])
            origins[name] = places[setting.flag] = setting.variable
        elif name in file.values:
            values[name] = file.values[name].value
            origins[name] = places[setting.flag] = file.values[name].place
        else:
            values[name] = setting.default
            origins[name] = DEFAULT
    return Layered(
        arguments=argparse.Namespace(**values),
        issuers=file.issuers,
        issuers_place=file.issuers_place,
        places=places,
        origins=origins,
    )


def _refuse_misspelt(settings: Iterable[Setting], environment: Mapping[str, str]) -> None:
    """Raise `SettingsError` for a variable that is nearly one of ours, and would be passed over."""
    variables = [_CONFIG_VARIABLE, *(setting.variable for setting in settings)]
    for name in environment:
        if not name.startswith(_PREFIX) or name in variables or _OF_KUBERNETES.search(name):
            continue
        for near in get_close_matches(name, variables, n=1, cutoff=_NEAR):
            raise SettingsError(f"{name}: no such setting; did you mean {near}?")


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
        advice = did_you_mean(text, setting.choices) if setting.choices else ""
        raise SettingsError(f"{setting.variable}: {error}" + (f"; {advice}" if advice else "")) from error
