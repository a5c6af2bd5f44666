"""``countersign.yaml``: settings by name, and the issuers, each with its place, as strictly as a policy is read."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from countersign.cli.config.flags import SECTIONS, Kind, Setting, ValueTextError
from countersign.cli.config.issuers import read_issuers
from countersign.edge.keys.access import IssuerKeys
from countersign.policy.problems import Code, PolicyError, Position, Severity, did_you_mean
from countersign.policy.reading.document import (
    Report,
    describe,
    documents,
    is_null,
    read_bool,
    read_fields,
    read_list,
    read_string,
)
from countersign.record.settings import LogFile

_ISSUERS: Final = "issuers"
_MAX_BYTES: Final = 1024 * 1024
_NUMBERS: Final = frozenset({"tag:yaml.org,2002:int", "tag:yaml.org,2002:float"})


class ConfigError(PolicyError):
    """The file cannot be used. The text has every problem of it with line, column and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A value of the file, and where it stands (``file:line:column``)."""

    value: Any
    place: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigFile:
    """The settings by name, and the issuers with the place of their list."""

    values: Mapping[str, Found]
    issuers: tuple[IssuerKeys, ...]
    issuers_place: str = ""


def read_config(path: Path, settings: Iterable[Setting] | None) -> ConfigFile:
    """Read a file; without ``settings`` its issuers only. Raise OSError, or `ConfigError` for anything wrong in it."""
    with path.open("rb") as file:
        octets = file.read(_MAX_BYTES + 1)
    return parse_config(octets, str(path), settings)


def parse_config(octets: bytes, name: str, settings: Iterable[Setting] | None) -> ConfigFile:
    """Read a file's contents; paths in it are relative to the directory of ``name``. Raise `ConfigError`."""
    text = octets.decode("utf-8", "replace")
    report = Report(name, text.splitlines())
    roots = list(documents(text, report))
    found = ConfigFile(values={}, issuers=())
    if "�" in text or len(octets) > _MAX_BYTES:
        _at_start(report, f"not UTF-8, or larger than {_MAX_BYTES} bytes")
    elif len(roots) > 1:
        report.error(roots[1], Code.SYNTAX, "a second document", "one file has one configuration")
    elif roots and not is_null(roots[0]):
        found = _Reader(report, Path(name).parent, settings).read(roots[0])
    if any(problem.severity is Severity.ERROR for problem in report.problems):
        raise ConfigError(sorted(report.problems, key=lambda problem: problem.position))
    return found


def _at_start(report: Report, message: str) -> None:
    report.error(Position(report.file, 1, 1), Code.SYNTAX, message)


def _is_off(setting: Setting, node: yaml.Node) -> bool:
    """Whether it is a plain ``off``, which is a boolean in YAML, where the flag takes that word."""
    return setting.takes_off and isinstance(node, yaml.ScalarNode) and node.value == "off"


class _Reader:
    def __init__(self, report: Report, base: Path, settings: Iterable[Setting] | None) -> None:
        self._report = report
        self._base = base
        self._settings = {setting.path: setting for setting in settings or ()}
        self._issuers_only = settings is None
        self._values: dict[str, Found] = {}

    def read(self, root: yaml.Node) -> ConfigFile:
        issuers: tuple[IssuerKeys, ...] = ()
        place = ""
        known = None if self._issuers_only else frozenset({_ISSUERS, *(path[0] for path in self._settings)})
        for field, node in read_fields(root, self._report, known, "configuration").items():
            if is_null(node):
                continue
            if field == _ISSUERS:
                issuers = read_issuers(node, self._report, self._base)
                place = str(self._report.position(node))
            elif self._issuers_only:
                continue
            elif field in SECTIONS:
                names = frozenset(path[1] for path in self._settings if path[0] == field)
                for name, value in read_fields(node, self._report, names, field).items():
                    self._take(self._settings[field, name], value)
            else:
                self._take(self._settings[field,], node)
        return ConfigFile(values=self._values, issuers=issuers, issuers_place=place)

    def _take(self, setting: Setting, node: yaml.Node) -> None:
        if is_null(node):
            return
        where = ".".join(setting.path)
        value: Any
        match setting.kind:
            case Kind.SWITCH:
                value = read_bool(node, self._report, where)
            case Kind.ONE:
                value = self._one(setting, node, where)
            case Kind.MANY:
                items = read_list(node, self._report, where) if isinstance(node, yaml.SequenceNode) else [node]
                value = [self._one(setting, item, where) for item in items]
            case Kind.PAIRS:
                value = self._pairs(setting, node, where)
        self._values[setting.name] = Found(value=value, place=str(self._report.position(node)))

    def _one(self, setting: Setting, node: yaml.Node, where: str) -> Any:  # noqa: ANN401 (whatever type it has)
        numeric = isinstance(node, yaml.ScalarNode) and node.tag in _NUMBERS
        plain = (numeric and setting.choices == ()) or _is_off(setting, node)
        text = str(node.value) if plain else read_string(node, self._report, where)
        return None if text is None else self._read(setting, text, node, where)

    def _read(self, setting: Setting, text: str, node: yaml.Node, where: str) -> Any:  # noqa: ANN401
        try:
            value = setting.read(text)
        except ValueTextError as error:
            advice = did_you_mean(text, setting.choices) if setting.choices else ""
            self._report.error(node, Code.INVALID_VALUE, f"`{where}`: {error}", advice)
            return None
        match value:
            case Path():
                return self._base / value
            case LogFile(path=path):
                return LogFile(self._base / path)
            case _:
                return value

    def _pairs(self, setting: Setting, node: yaml.Node, where: str) -> list[Any]:
        if not isinstance(node, yaml.MappingNode):
            wanted = f"`{where}` wants an object, found {describe(node)}"
            self._report.error(node, Code.WRONG_TYPE, wanted, "such as {app: httpbin}")
            return []
        members = read_fields(node, self._report, None, where).items()
        texts = [(name, read_string(item, self._report, f"{where}.{name}"), item) for name, item in members]
        return [
            self._read(setting, f"{name}={text}", item, f"{where}.{name}")
            for name, text, item in texts
            if text is not None
        ]
