"""Which rules could match a request, found without asking them.

Each rule is filed under the values of one attribute that it requires: under one exact value, prefix or suffix for
each value that any of its alternatives accepts. A request looks its own values up, in every reading they have. A rule
that requires nothing that can be looked up is a candidate always.

INVARIANT: a rule that is not among the candidates has the outcome NO_MATCH. So a rule is filed under an attribute
only if every alternative (source or operation) has a positive term of it, and where a request's attribute cannot be
read, every rule that is filed under that attribute is a candidate.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from countersign.policy.lookups import LOOKUPS, Lookup, Texts, filed_under
from countersign.policy.resources import Clause, Rule
from countersign.policy.terms.evidence import Evidence

FEW: Final = 8  # rules that are asked sooner than looked up

Key = tuple[str, Texts]  # an attribute and its argument


class RuleIndex:
    """Positions of rules by what they require. Up to ``few`` rules are simply all candidates."""

    def __init__(self, rules: Sequence[Rule], trust_domains: tuple[str, ...], few: int = FEW) -> None:
        self._everyone = range(len(rules))
        self._always: list[int] = []
        self._files: tuple[_File, ...] = ()
        if len(rules) <= few:
            return
        choices = [_choices(rule, trust_domains) for rule in rules]
        crowd = Counter((key, value) for options in choices for key, values in options.items() for value in set(values))
        files: dict[Key, _File] = {}
        for position, options in enumerate(choices):
            if not options:
                self._always.append(position)
                continue
            # The attribute whose values are shared with the fewest other rules.
            key = min(options, key=lambda each: max(crowd[each, value] for value in options[each]))
            file = files.setdefault(key, _File(LOOKUPS[key[0]](key[1])))
            for value in options[key]:
                file.add(value, position)
        self._files = tuple(files.values())

    @property
    def always(self) -> Sequence[int]:
        """The positions of rules that are candidates of every request."""
        return self._always if self._files else self._everyone

    def candidates(self, evidence: Evidence) -> Iterable[int]:
        """The positions of rules that could match, in ascending order."""
        if not self._files:
            return self._everyone
        found = set(self._always)
        for file in self._files:
            file.collect(evidence, found)
        return sorted(found)


def _choices(rule: Rule, trust_domains: tuple[str, ...]) -> Mapping[Key, Texts]:
    """For each attribute that the rule cannot do without: the values, one of which it requires."""
    options: dict[Key, Texts] = {}
    for clause in rule.conditions:
        options |= _required(clause, trust_domains)
    for clauses in (rule.sources, rule.operations):
        if not clauses:
            continue
        required = [_required(clause, trust_domains) for clause in clauses]
        for key in set.intersection(*(set(each) for each in required)):
            options[key] = tuple(value for each in required for value in each[key])
    return options


def _required(clause: Clause, trust_domains: tuple[str, ...]) -> dict[Key, Texts]:
    found: dict[Key, Texts] = {}
    for term in clause:
        values = filed_under(term, trust_domains)
        if values is not None:
            found[term.attribute, term.argument] = values
    return found


@dataclass(frozen=True, slots=True)
class _Affixes:
    """Positions by affix, and the lengths there are, longest last."""

    by_text: dict[str, list[int]]
    lengths: list[int]

    def add(self, text: str, position: int) -> None:
        self.by_text.setdefault(text, []).append(position)
        if len(text) not in self.lengths:
            self.lengths.append(len(text))
            self.lengths.sort()


class _File:
    """The rules that require one attribute."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup
        self._all: set[int] = set()
        self._exact: dict[str, list[int]] = {}
        self._prefixes = _Affixes({}, [])
        self._suffixes = _Affixes({}, [])

    def add(self, value: str, position: int) -> None:
        """File a rule under a value."""
        self._all.add(position)
        if value.startswith("*"):
            self._suffixes.add(value[1:], position)
        elif value.endswith("*"):
            self._prefixes.add(value[:-1], position)
        else:
            self._exact.setdefault(value, []).append(position)

    def collect(self, evidence: Evidence, found: set[int]) -> None:
        """Add the rules whose value the request has."""
        texts = self._lookup(evidence)
        if texts is None:
            found |= self._all
            return
        for text in texts:
            found.update(self._exact.get(text, ()))
            for length in self._prefixes.lengths:
                if length > len(text):
                    break
                found.update(self._prefixes.by_text.get(text[:length], ()))
            for length in self._suffixes.lengths:
                if length > len(text):
                    break
                found.update(self._suffixes.by_text.get(text[len(text) - length :], ()))
