"""Values that are made anew for every check.

A dataclass that is frozen at run time takes more than twice as long to make, and a check makes twenty. These are frozen
for the type checker, which refuses every assignment to a field. What is kept as a key (`Workload`, `SpiffeId`) and what
proves an identity (`VerifiedToken`) is frozen at run time too.
"""

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

_T = TypeVar("_T")


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
def per_check(cls: type[_T]) -> type[_T]:
    """A dataclass with slots, by names only, equal and hashed by its fields."""
    return dataclass(slots=True, kw_only=True, unsafe_hash=True)(cls)
