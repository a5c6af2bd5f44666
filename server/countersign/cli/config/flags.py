"""The flags of a verb as settings that may come from elsewhere too.

A verb adds its flags to a parser as ever, then calls `make_settings`: from then on a parsed flag is only there if it
was given, and each flag is also a field of the file and an environment variable. Its argparse type is its one reader.
"""

import argparse
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

SECTIONS: Final = ("audit", "keys", "tls")  # settings whose names begin so stand in an object of that name
_PLURALS: Final = {
    "label": "labels",
    "xfcc_trusted_proxy": "xfccTrustedProxies",
    "trust_domain_alias": "trustDomainAliases",
    "keys_blocked_address": "blockedAddresses",
    "tls_allow_client": "allowClients",
}
_NOT_SETTINGS: Final = frozenset({"help", "config"})


class Kind(Enum):
    """How a setting is written in a file."""

    ONE = auto()  # a string or a number
    MANY = auto()  # a list of them
    PAIRS = auto()  # an object, or a list of `name=value`
    SWITCH = auto()  # true or false


class ValueTextError(ValueError):
    """A text that is no value of its setting; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """``path`` is its place in the file, ``read`` turns one text into a value or raises `ValueTextError`."""

    name: str
    flag: str
    kind: Kind
    default: Any  # whatever type the flag has
    read: Callable[[str], Any]
    choices: tuple[str, ...]
    takes_off: bool = False  # the word `off`, beside other values

    @property
    def path(self) -> tuple[str, ...]:
        """Its place in the file."""
        section = next((section for section in SECTIONS if self.name.startswith(f"{section}_")), "")
        name = _PLURALS.get(self.name) or _camel(self.name.removeprefix(f"{section}_") if section else self.name)
        return (section, name) if section else (name,)

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return f"COUNTERSIGN_{self.name.upper()}"


def make_settings(parser: argparse.ArgumentParser) -> None:
    """Make every flag of the parser a setting. The parsed arguments have them as ``settings``, by name."""
    settings = {}
    for action in list(parser._actions):  # noqa: SLF001 (argparse tells them no other way)
        if action.dest in _NOT_SETTINGS or not action.option_strings:
            continue
        settings[action.dest] = Setting(
            name=action.dest,
            flag=action.option_strings[-1],
            kind=_kind(action),
            default=action.default,
            read=_reader(action),
            choices=tuple(map(str, action.choices or ())),
            takes_off=str(action.metavar).endswith("|off"),
        )
        action.help = (action.help or "").replace("%(default)s", str(action.default))
        action.default = argparse.SUPPRESS
    parser.set_defaults(settings=settings)


def _kind(action: argparse.Action) -> Kind:
    if action.nargs == 0:
        return Kind.SWITCH
    if not isinstance(action, argparse._AppendAction):  # noqa: SLF001 (argparse's name for action="append")
        return Kind.ONE
    return Kind.PAIRS if action.metavar == "K=V" else Kind.MANY


def _reader(action: argparse.Action) -> Callable[[str], Any]:
    def read(text: str) -> Any:  # noqa: ANN401 (whatever type the flag has)
        convert: Any = action.type or str
        choices = list(map(str, action.choices or ()))
        if choices and text not in choices:
            raise ValueTextError(f"`{text}` is none of {', '.join(choices)}")
        try:
            return convert(text)
        except argparse.ArgumentTypeError as error:
            raise ValueTextError(str(error)) from error
        except ValueError as error:
            raise ValueTextError(f"`{text}` cannot be read") from error

    return read


def _camel(name: str) -> str:
    return re.sub(r"_(.)", lambda match: match[1].upper(), name)
