"""Where in a resource a position is, in the words of an API: ``spec.rules[0].from``."""

import re
from typing import Final

import yaml

_Loader: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_PLAIN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


def field_path(text: str, line: int, column: int) -> str:
    """The path of the field, item or field's name that begins there; empty for the whole, and where nothing does.

    ``line`` and ``column`` count from 1. The text is one document.
    """
    try:
        root = yaml.compose(text, Loader=_Loader)
    except (yaml.YAMLError, RecursionError):
        return ""
    return "" if root is None else _below(root, (line - 1, column - 1), "") or ""


def _below(node: yaml.Node, place: tuple[int, int], path: str) -> str | None:
    if (node.start_mark.line, node.start_mark.column) == place:
        return path
    if isinstance(node, yaml.MappingNode):
        members = [(key, value, _member(path, str(key.value))) for key, value in node.value]
    elif isinstance(node, yaml.SequenceNode):
        members = [(item, item, f"{path}[{number}]") for number, item in enumerate(node.value)]
    else:
        return None
    for key, value, name in members:
        for each in (key, value):
            found = _below(each, place, name)
            if found is not None:
                return found
    return None


def _member(path: str, name: str) -> str:
    if not _PLAIN.fullmatch(name):
        return f"{path}[{name}]"
    return f"{path}.{name}" if path else name
