"""What is wrong with a policy file, where, and what to do: the words of every load error."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum


class Severity(StrEnum):
    """An error keeps the whole set from loading; a warning does not."""

    ERROR = "error"
    WARNING = "warning"


class Code(StrEnum):
    """Stable names of problems. Istio's own code where the meaning is the same."""

    SYNTAX = "CS0001"
    DUPLICATE_KEY = "CS0002"
    UNKNOWN_FIELD = "CS0003"
    WRONG_TYPE = "CS0004"
    MISSING_FIELD = "CS0005"
    DUPLICATE_RESOURCE = "CS0007"
    UNREADABLE_FILE = "CS0008"
    CUSTOM_DENIES = "CS0009"
    LITERAL_ASTERISK = "CS0101"
    SPIFFE_SCHEME = "CS0102"
    ADMITS_ANONYMOUS = "CS0103"
    CLAIM_NEVER_MATCHES = "CS0104"
    REQUEST_PRINCIPAL_NEVER_MATCHES = "CS0105"
    PRINCIPAL_NEVER_MATCHES = "CS0106"
    HOST_WITHOUT_PORT = "CS0107"
    HTTP_ONLY_DENY = "CS0108"
    METHOD_NEVER_MATCHES = "CS0109"
    PATH_NEVER_MATCHES = "CS0110"
    COMPETING_POLICIES = "CS0111"
    TOKEN_NOT_REQUIRED = "CS0112"  # noqa: S105 (no password)
    ALLOWS_EVERYTHING = "CS0113"
    PLAINTEXT_KEYS = "CS0114"
    DUPLICATE_ISSUER = "CS0115"
    UNUSABLE_KEY = "CS0116"
    INVALID_VALUE = "IST0106"  # SchemaValidationError
    NO_MATCHING_WORKLOAD = "IST0127"  # NoMatchingWorkloadsFound
    INEFFECTIVE_POLICY = "IST0167"  # IneffectivePolicy


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """Where in a file; line and column count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One finding. ``snippet`` is the source line it points into; ``help`` says what to do."""

    severity: Severity
    code: StrEnum  # `Code`, or the names of another room that reads files
    position: Position
    message: str
    help: str = ""
    snippet: str = ""

    def __str__(self) -> str:
        return f"{self.position}: {self.severity}[{self.code}]: {self.message}"

    def render(self) -> str:
        """The finding with its source line, a caret, and what to do."""
        lines = [str(self)]
        if self.snippet:
            lines += [f"    {self.snippet}", "    " + " " * (self.position.column - 1) + "^"]
        if self.help:
            lines.append(f"    help: {self.help}")
        return "\n".join(lines)


class PolicyError(ValueError):
    """The policies cannot be used. ``problems`` has every finding of every file, errors and warnings."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(problem.render() for problem in problems))
        self.problems = tuple(problems)


def did_you_mean(found: str, known: Iterable[str]) -> str:
    """Help for a misspelling: the closest known word, else all of them."""
    known = sorted(known)
    close = get_close_matches(found, known, n=1)
    if close:
        return f"did you mean `{close[0]}`?"
    return "known here: " + ", ".join(known)
