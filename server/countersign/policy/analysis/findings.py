"""What a check of one value has to go by, and what it finds; the check that all wildcard values share."""

from collections.abc import Callable
from dataclasses import dataclass

from countersign.policy.analysis.surroundings import Surroundings
from countersign.policy.problems import Code
from countersign.policy.resources import Action, Term


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """``issuers`` whose tokens may come with the request, and claims split at spaces. No issuers: not known."""

    surroundings: Surroundings
    action: Action = Action.ALLOW
    issuers: frozenset[str] = frozenset()
    split_claims: frozenset[str] = frozenset({"scope", "permission"})


@dataclass(frozen=True, slots=True)
class Finding:
    """``what`` continues "`value` in `field` ..."; ``write`` says what to write instead."""

    code: Code
    what: str
    write: str


Check = Callable[[Term, str, Context], Finding | None]


def without_wildcard(value: str) -> str:
    """What a value says literally (see `match.wildcard`)."""
    return value[1:] if value.startswith("*") else value.removesuffix("*")


def is_exact(value: str) -> bool:
    """Whether a value has no wildcard."""
    return without_wildcard(value) == value


def literal_asterisk(_: Term, value: str, __: Context) -> Finding | None:
    """Only one ``*`` counts, at an end; Istio takes the others without a word (issue 46910)."""
    if "*" not in without_wildcard(value):
        return None
    return Finding(
        Code.LITERAL_ASTERISK,
        "has a `*` that is a plain character",
        "one `*` counts, first or last; list the values, or for paths write {*} or {**}",
    )


def literal_asterisk_in_list(term: Term, value: str, context: Context) -> Finding | None:
    """Likewise in ``[value]``, which asks for an element of a list."""
    return literal_asterisk(term, value.strip("[]"), context)
