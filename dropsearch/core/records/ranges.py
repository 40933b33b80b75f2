"""Ranges of hyperparameters that are searched in addition to rates, learning rate and weight decay."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from dropsearch.core.override_text import written

MANY = 1000
"""Maximum number of values of a range, and of combinations, that are checked one by one."""


@dataclass(frozen=True)
class Choice:
    """A choice among values: numbers, strings, booleans, None, or lists of them."""

    values: tuple[Any, ...]

    def holds(self, value: Any) -> bool:
        """Return whether a value is one of the choices."""
        return any(_same(value, choice) for choice in self.values)

    @property
    def middle(self) -> Any:
        """The middle value in the given order."""
        return self.values[(len(self.values) - 1) // 2]

    @property
    def ends(self) -> tuple[Any, ...]:
        """All values, since choices have no order."""
        return self.values

    @property
    def repeats(self) -> bool:
        """Whether several trials are likely to have the same value."""
        return True

    tried = ends
    """The values to check one by one: all of them."""

    @property
    def in_words(self) -> str:
        """The choices for people: `relu, gelu or silu`."""
        *first, last = map(written, self.values)
        return f"{', '.join(first)} or {last}" if first else last

    def __str__(self) -> str:
        return f"choice({','.join(written(value) for value in self.values)})"


@dataclass(frozen=True)
class Numbers:
    """The numbers from `low` to `high` inclusive; integers if both are `int`."""

    low: float
    high: float
    log: bool = False
    """Whether the sampler uses a logarithmic scale."""
    step: float | None = None
    """Distance between neighboring values, None for a continuous range."""

    @property
    def is_integer(self) -> bool:
        """Whether all numbers of the range are integers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def holds(self, value: Any) -> bool:
        """Return whether a value lies in the range."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        if self.is_integer and value != int(value):
            return False
        steps = (value - self.low) / self.step if self.step else 0
        return math.isclose(steps, round(steps), abs_tol=1e-9)

    @property
    def middle(self) -> float:
        """The middle of the range on the sampler's scale."""
        return self._on_grid(math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2)

    def _on_grid(self, value: float) -> float:
        return value if self.step is None else self.low + round((value - self.low) / self.step) * self.step

    @property
    def ends(self) -> tuple[float, ...]:
        """The lowest and the highest value."""
        return (self.low, self.high)

    @property
    def repeats(self) -> bool:
        """Whether several trials are likely to have the same value."""
        return self.step is not None and (self.high - self.low) / self.step < MANY

    @property
    def tried(self) -> tuple[float, ...]:
        """The values to check one by one: all of them, or only the ends if there are too many."""
        if self.step is None or not self.repeats:
            return self.ends
        return tuple(self.low + index * self.step for index in range(round((self.high - self.low) / self.step) + 1))

    @property
    def in_words(self) -> str:
        """The range for people: `16 to 64, whole numbers`."""
        kinds = ["whole numbers"] * self.is_integer
        if self.step is not None and not (self.is_integer and self.step == 1):
            kinds = [f"in steps of {self.step:g}"]
        return ", ".join([f"{written(self.low)} to {written(self.high)}", *kinds, *["log scale"] * self.log])

    def __str__(self) -> str:
        if self.step is not None and not (self.is_integer and self.step == 1):
            stop = Decimal(str(self.high)) + Decimal(str(self.step))  # a range excludes its stop
            return f"range({self.low},{stop},{self.step})"
        text = f"interval({written(self.low)},{written(self.high)})"
        text = f"int({text})" if self.is_integer else text
        return f"tag(log, {text})" if self.log else text


Range = Choice | Numbers


def first_value(searched: Range, configured: Any) -> Any:
    """Return the configured value if it lies in the range, with the range's type; otherwise the middle."""
    if not searched.holds(configured):
        return searched.middle
    if isinstance(searched, Choice):
        return next(value for value in searched.values if _same(value, configured))
    return int(configured) if searched.is_integer else float(configured)


def combinations(ranges: Mapping[str, Range], most: int) -> tuple[dict[str, Any], ...]:
    """Return at most `most` combinations of the ends of ranges: all, or a few with each end at least once."""
    return _combine({key: searched.ends for key, searched in ranges.items()}, most)


def all_tried(ranges: Mapping[str, Range]) -> tuple[dict[str, Any], ...]:
    """Return all combinations of `tried` values; if there are more than `MANY`, a few with each value at least once."""
    return _combine({key: searched.tried for key, searched in ranges.items()}, MANY)


def _combine(values: Mapping[str, tuple[Any, ...]], most: int) -> tuple[dict[str, Any], ...]:
    if math.prod(map(len, values.values())) <= most:
        return tuple(dict(zip(values, combined, strict=True)) for combined in itertools.product(*values.values()))
    return tuple(_each_value(values))


def _each_value(values: Mapping[str, tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    for index in range(max(map(len, values.values()))):
        yield {key: options[index % len(options)] for key, options in values.items()}


def _same(one: Any, other: Any) -> bool:
    # In Python True == 1, but they are different hyperparameters.
    return one == other and isinstance(one, bool) == isinstance(other, bool)
