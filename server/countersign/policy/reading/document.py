"""YAML text to values that know where they stand, as strictly as a security policy deserves.

Duplicate keys, YAML 1.1's surprises (``on`` is a boolean, ``22:22`` is 1342) and alias bombs are errors here;
the Kubernetes API server would refuse them or, worse, read something else.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import yaml

from countersign.policy.problems import Code, Position, Problem, Severity, did_you_mean

MAX_TEXT = 10 * 1024 * 1024  # bytes of one file: the largest ConfigMap is a tenth of it
_MAX_DEPTH = 64
_MAX_NODES = 500_000  # aliases expanded: what a 10 MiB file can hold without them
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml where the wheel has it: the same parser, 10x faster

_TAG_STR = "tag:yaml.org,2002:str"
_TAG_NAMES = {
    "tag:yaml.org,2002:bool": "a boolean",
    "tag:yaml.org,2002:int": "a number",
    "tag:yaml.org,2002:float": "a number",
    "tag:yaml.org,2002:null": "null",
    "tag:yaml.org,2002:timestamp": "a date",
    "tag:yaml.org,2002:merge": "a merge key",
    _TAG_STR: "a string",
}
_TRUE, _FALSE = frozenset({"true", "True", "TRUE"}), frozenset({"false", "False", "FALSE"})


@dataclass(slots=True)
class Report:
    """Collects the problems of one file. ``shared`` has each text once that policies say again and again."""

    file: str
    lines: Sequence[str]
    problems: list[Problem] = field(default_factory=list)
    shared: dict[str, str] = field(default_factory=dict)

    def error(self, where: yaml.Node | Position, code: StrEnum, message: str, help: str = "") -> None:  # noqa: A002
        """Note an error at a node."""
        self.note(Severity.ERROR, where, code, message, help)

    def warning(self, where: yaml.Node | Position, code: StrEnum, message: str, help: str = "") -> None:  # noqa: A002
        """Note a warning at a node."""
        self.note(Severity.WARNING, where, code, message, help)

    def note(self, severity: Severity, where: yaml.Node | Position, code: StrEnum, message: str, advice: str) -> None:
        """Note a problem at a node."""
        position = where if isinstance(where, Position) else self.position(where)
        snippet = self.lines[position.line - 1] if position.line <= len(self.lines) else ""
        self.problems.append(
            Problem(
                severity=severity,
                code=code,
                position=position,
                message=message,
                help=advice,
                snippet=snippet.replace("\t", " ")[:200],
            )
        )

    def position(self, node: yaml.Node) -> Position:
        """Where a node starts."""
        mark = node.start_mark
        return Position(self.file, mark.line + 1, mark.column + 1)

    def source(self, node: yaml.Node) -> str:
        """``file:line`` of a node, as decisions cite it."""
        return f"{self.file}:{node.start_mark.line + 1}"


def documents(text: str, report: Report) -> Iterator[yaml.Node]:
    """Each YAML document's root node. What does not parse is reported, and ends the file."""
    if len(text) > MAX_TEXT:
        report.error(Position(report.file, 1, 1), Code.SYNTAX, f"file larger than {MAX_TEXT} characters")
        return
    try:
        if not _shallow(text, report):
            return
        loader = _Loader(text)
        while loader.check_node():
            node = loader.get_node()
            if node is not None and _sound(node, report, _Budget(_MAX_NODES), 0):
                yield node
    except (yaml.YAMLError, UnicodeError) as error:
        mark = getattr(error, "problem_mark", None)  # a text that is refused before it is parsed has none
        position = Position(report.file, mark.line + 1, mark.column + 1) if mark else Position(report.file, 1, 1)
        problem = getattr(error, "problem", "") or str(error).splitlines()[0]
        report.error(position, Code.SYNTAX, f"not YAML: {problem}")


def _shallow(text: str, report: Report) -> bool:
    """Whether the nesting is bounded. Asked first: the composer recurses in C, where a deep text ends the process."""
    loader = _Loader(text)
    depth = 0
    try:
        while loader.check_event():
            event = loader.get_event()
            if isinstance(event, yaml.ScalarEvent):  # most are
                continue
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _MAX_DEPTH:
                mark = event.start_mark
                position = Position(report.file, mark.line + 1, mark.column + 1)
                report.error(position, Code.SYNTAX, f"nested deeper than {_MAX_DEPTH} levels")
                return False
    except yaml.YAMLError:
        return True  # the composer gets no further, and says so after what precedes
    return True


@dataclass(slots=True)
class _Budget:
    nodes: int


def _sound(node: yaml.Node, report: Report, budget: _Budget, depth: int) -> bool:
    """Whether a tree is bounded: an alias may repeat a value, not multiply it without end or contain itself."""
    budget.nodes -= 1
    if depth > _MAX_DEPTH:
        report.error(node, Code.SYNTAX, f"nested deeper than {_MAX_DEPTH} levels")
        return False
    if budget.nodes < 0:
        report.error(node, Code.SYNTAX, f"more than {_MAX_NODES} values, aliases expanded")
        return False
    if isinstance(node, yaml.MappingNode):
        children = [child for pair in node.value for child in pair]
    elif isinstance(node, yaml.SequenceNode):
        children = node.value
    else:
        return True
    for child in children:  # noqa: SIM110 (`all` of a generator takes twice as long)
        if not _sound(child, report, budget, depth + 1):
            return False
    return True


def is_null(node: yaml.Node | None) -> bool:
    """Whether a value is absent or null."""
    return node is None or node.tag == "tag:yaml.org,2002:null"


def describe(node: yaml.Node) -> str:
    """What was found, in words."""
    if isinstance(node, yaml.MappingNode):
        return "an object"
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    return _TAG_NAMES.get(node.tag, f"a value tagged {node.tag}")


def read_fields(
    node: yaml.Node, report: Report, known: frozenset[str] | None, where: str, *, numeric: bool = False
) -> dict[str, yaml.Node]:
    """An object's members by name; unknown and repeated names are errors. ``known`` None takes any name.

    ``numeric``: a name may be written as a number, as Kubernetes takes it for a key of ``portLevelMtls``.
    """
    if not isinstance(node, yaml.MappingNode):
        report.error(node, Code.WRONG_TYPE, f"`{where}` wants an object, found {describe(node)}")
        return {}
    members: dict[str, yaml.Node] = {}
    for key, value in node.value:
        if numeric and key.tag == "tag:yaml.org,2002:int":
            name: str | None = str(key.value)
        else:
            name = read_string(key, report, "a field name")
        if name is None:
            continue
        if known is not None and name not in known:
            report.error(key, Code.UNKNOWN_FIELD, f"unknown field `{name}` in `{where}`", did_you_mean(name, known))
        elif name in members:
            line = members[name].start_mark.line + 1
            report.error(key, Code.DUPLICATE_KEY, f"`{name}` is here twice, first at line {line}", "keep one of them")
        else:
            members[name] = value
    return members


def read_string(node: yaml.Node, report: Report, where: str) -> str | None:
    """A string; None (and reported) if it is anything else."""
    if isinstance(node, yaml.ScalarNode) and node.tag == _TAG_STR:
        return report.shared.setdefault(node.value, node.value)
    advice = f'quote it: "{node.value}"' if isinstance(node, yaml.ScalarNode) and node.value else ""
    report.error(node, Code.WRONG_TYPE, f"`{where}` wants a string, found {describe(node)}", advice)
    return None


def read_bool(node: yaml.Node, report: Report, where: str) -> bool:
    """A boolean, written ``true`` or ``false``; False (and reported) if it is anything else."""
    if isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:bool":
        if node.value in _TRUE:
            return True
        if node.value in _FALSE:
            return False
    report.error(node, Code.WRONG_TYPE, f"`{where}` wants true or false, found {describe(node)}")
    return False


def read_list(node: yaml.Node, report: Report, where: str) -> list[yaml.Node]:
    """A list's items; empty (and reported) if it is anything else."""
    if isinstance(node, yaml.SequenceNode):
        return list(node.value)
    report.error(node, Code.WRONG_TYPE, f"`{where}` wants a list, found {describe(node)}")
    return []


def read_strings(node: yaml.Node, report: Report, where: str) -> list[tuple[str, yaml.Node]]:
    """A list of strings, each with its node."""
    items = ((read_string(item, report, where), item) for item in read_list(node, report, where))
    return [(text, item) for text, item in items if text is not None]


def read_string_map(node: yaml.Node, report: Report, where: str) -> dict[str, str]:
    """An object whose values are strings."""
    members = read_fields(node, report, None, where)
    texts = {name: read_string(value, report, f"{where}.{name}") for name, value in members.items()}
    return {name: text for name, text in texts.items() if text is not None}
