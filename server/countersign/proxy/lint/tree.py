"""An Envoy configuration as nodes that know where they stand: fields by either of their names, typed extensions.

Source: protobuf's JSON mapping (a field is `snake_case` or `lowerCamelCase`, an enum a name or a number),
google.protobuf.Any and xds.type.v3.TypedStruct.
"""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Final

import yaml

_TRUE: Final = frozenset({"true", "yes", "on", "y", "t", "1"})  # what Envoy's readers of YAML and JSON take for it
_NUMBER: Final = re.compile(r"\s*[+-]?(?:0[xX])?0*([0-9])\s*")  # as they take it, of one digit whatever its base
_NULL: Final = "tag:yaml.org,2002:null"
_DURATION: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)s")


def field(node: yaml.Node | None, *path: str) -> yaml.Node | None:
    """A member of an object, or of an object in it; None if it is not there, or null. Names are `snake_case`."""
    for name in path:
        if not isinstance(node, yaml.MappingNode):
            return None
        names = (name, camel(name))
        node = next((value for key, value in node.value if key.value in names), None)
        if node is None or node.tag == _NULL:
            return None
    return node


@cache
def camel(name: str) -> str:
    """The other name of a field: `lowerCamelCase`."""
    return re.sub(r"_([a-z0-9])", lambda match: match[1].upper(), name)


def items(node: yaml.Node | None) -> Sequence[yaml.Node]:
    """The elements of a list; none if it is no list."""
    return node.value if isinstance(node, yaml.SequenceNode) else ()


def members(node: yaml.Node | None) -> Sequence[tuple[yaml.Node, yaml.Node]]:
    """The names and values of an object; none if it is no object."""
    return node.value if isinstance(node, yaml.MappingNode) else ()


def text(node: yaml.Node | None) -> str:
    """A scalar as it is written; empty if it is none."""
    return str(node.value) if isinstance(node, yaml.ScalarNode) else ""


def is_true(node: yaml.Node | None) -> bool:
    """Whether a boolean, wrapped or not, is set."""
    return text(field(node, "value") or node).lower() in _TRUE


def word(node: yaml.Node | None, names: Sequence[str]) -> str:
    """An enum by name, in capitals, also where it is written as a number or otherwise; absent is the first."""
    written = text(node)
    match = _NUMBER.fullmatch(written)
    if match is not None and int(match[1]) < len(names):
        return names[int(match[1])]
    return written.upper() or names[0]


def seconds(node: yaml.Node | None) -> float | None:
    """A duration, such as `0.25s`; None if it is none."""
    match = _DURATION.fullmatch(text(node))
    return float(match[1]) if match is not None else None


def typed(node: yaml.Node | None) -> tuple[str, yaml.Node | None]:
    """What kind of extension an Any holds, without its package, and its fields."""
    kind = text(field(node, "@type"))
    if kind.endswith(".TypedStruct"):
        return text(field(node, "type_url")).rpartition("/")[2], field(node, "value")
    return kind.rpartition("/")[2], node


def is_kind(kind: str, *names: str) -> bool:
    """Whether a message is one of those, of whatever version."""
    return kind.rpartition(".")[2] in names


def walk(node: yaml.Node) -> Iterator[yaml.Node]:
    """A node and everything in it. The reader has bounded both, aliases expanded."""
    yield node
    for key, value in members(node):
        yield key
        yield from walk(value)
    for item in items(node):
        yield from walk(item)
