"""What the value of a field must satisfy, stated beside the field, and the one function that checks it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from dropsearch.core.errors import close_match

_CONSTRAINT = "constraint"


@dataclass(frozen=True)
class Constraint:
    """What a value must satisfy; None always does."""

    one_of: tuple[str, ...] = ()
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None

    def problems(self, key: str, value: Any) -> Iterator[str]:
        """Yield what is wrong with the value of a key."""
        if isinstance(value, float) and not math.isfinite(value):
            yield f"{key} must be a finite number, got {value}"
        rules: tuple[tuple[str, float | None, Callable[[Any, float], bool]], ...] = (
            ("at least", self.at_least, lambda value, limit: value >= limit),
            ("above", self.above, lambda value, limit: value > limit),
            ("at most", self.at_most, lambda value, limit: value <= limit),
            ("below", self.below, lambda value, limit: value < limit),
        )
        for words, limit, holds in rules:
            if limit is not None and not holds(value, limit):
                yield f"{key} must be {words} {limit}, got {value}"
        if self.one_of and value not in self.one_of:
            yield f'{key} must be one of {", ".join(self.one_of)}, got "{value}"{close_match(str(value), self.one_of)}'


def checked(default: Any, constraint: Constraint) -> Any:
    """Return a dataclass field with this default, whose value must satisfy the constraint."""
    return field(default=default, metadata={_CONSTRAINT: constraint})


def field_problems(config: Any, prefix: str = "") -> Iterator[str]:
    """Yield what is wrong with the values of a configuration, field by field, its groups included."""
    for each in dataclasses.fields(config):
        value, key = getattr(config, each.name), f"{prefix}{each.name}"
        if dataclasses.is_dataclass(value):
            yield from field_problems(value, f"{key}.")
        elif value is not None and _CONSTRAINT in each.metadata:
            yield from each.metadata[_CONSTRAINT].problems(key, value)
