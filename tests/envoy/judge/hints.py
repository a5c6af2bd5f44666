"""What the policies of a set ask for, so that random requests meet them, or just miss."""

from collections.abc import Sequence
from random import Random
from typing import Final

from tests.envoy.judge.matchers import Json
from tests.envoy.judge.policy_set import PolicySet
from tests.envoy.judge.vocabulary import Words

_ENDS: Final = ("", "x", "admin", "-eu", "/users")
_OPERATORS: Final = (("{**}", ("", "a", "a/b", "a//b")), ("{*}", ("a", "a.b", "", "a=b", "%20")))


class Hints:
    """The values of each field of a set's policies."""

    def __init__(self, rng: Random, policies: PolicySet) -> None:
        self._rng = rng
        self._wanted: dict[str, list[str]] = {}
        for policy in policies.applying("AuthorizationPolicy"):
            for rule in policy["spec"].get("rules", ()):
                self._note_rule(rule)

    def _note_rule(self, rule: Json) -> None:
        for part in rule.get("from", ()):
            self._note(part["source"])
        for part in rule.get("to", ()):
            self._note(part["operation"])
        for condition in rule.get("when", ()):
            self._note({condition["key"]: [*condition.get("values", ()), *condition.get("notValues", ())]})

    def _note(self, fields: Json) -> None:
        for name, values in fields.items():
            plain = name[3].lower() + name[4:] if name.startswith("not") else name
            self._wanted.setdefault(plain, []).extend(values)

    def values(self, field: str) -> list[str]:
        """What the policies say of a field."""
        return self._wanted.get(field, [])

    def header_names(self) -> list[str]:
        """The plain headers that the policies look at."""
        found = [key[len("request.headers[") : -1] for key in self._wanted if key.startswith("request.headers[")]
        return [name for name in found if not name.startswith(":") and name not in ("host", "x-forwarded-proto")]

    def pick(self, fields: Sequence[str], otherwise: Words) -> str:
        """A text for one of the fields."""
        asked = [value for field in fields for value in self.values(field)]
        if asked and self._rng.random() < 0.5:
            return self.instance(self._rng.choice(asked))
        return self._rng.choice(otherwise)

    def instance(self, pattern: str) -> str:
        """A text that a pattern matches, or just does not."""
        for operator, fillings in _OPERATORS:
            while operator in pattern:
                pattern = pattern.replace(operator, self._rng.choice(fillings), 1)
        if "*" in pattern and self._rng.random() < 0.9:
            return pattern.replace("*", self._rng.choice(_ENDS))
        return pattern
