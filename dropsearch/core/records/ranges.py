"""The ranges of what is searched beside rates, learning rate and weight decay."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

MANY = 1000
"""So many values of an interval are looked at one by one, and so many combinations."""

_PLAIN_WORD = re.compile(r"(?!(?:true|false|null|nan|inf)$)[A-Za-z_][\w.\-/]*$", re.IGNORECASE)


@dataclass(frozen=True)
class Choice:
    """One of several values: numbers, words, true or false, None, or lists of them."""

    values: tuple[Any, ...]

    def holds(self, value: Any) -> bool:
        """Say whether a value is one of them."""
        return any(_same(value, mine) for mine in self.values)

    @property
    def middle(self) -> Any:
        """The value in the middle, in the order in which they were given."""
        return self.values[(len(self.values) - 1) // 2]

    @property
    def ends(self) -> tuple[Any, ...]:
        """All of them: none lies between others."""
        return self.values

    @property
    def repeats(self) -> bool:
        """Whether several trials are likely to have the same value."""
        return True

    @property
    def tried(self) -> tuple[Any, ...]:
        """The values that can be checked one by one: all of them."""
        return self.values

    def __str__(self) -> str:
        return f"choice({','.join(written(value) for value in self.values)})"


@dataclass(frozen=True)
class Numbers:
    """The numbers from `low` to `high`, both included; whole ones where both are `int`."""

    low: float
    high: float
    log: bool = False
    """Whether the sampler sees their logarithms."""
    step: float | None = None
    """The distance of two neighbours from `low` on, None for any number between."""

    @property
    def is_integer(self) -> bool:
        """Whether all of its numbers are whole."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def holds(self, value: Any) -> bool:
        """Say whether a value is one of its numbers."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        steps = (value - self.low) / self.step if self.step else 0
        return math.isclose(steps, round(steps), abs_tol=1e-9)

    @property
    def middle(self) -> float:
        """The number in the middle, by the sampler's own scale."""
        return self._on_grid(math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2)

    def _on_grid(self, value: float) -> float:
        return value if self.step is None else self.low + round((value - self.low) / self.step) * self.step

    @property
    def ends(self) -> tuple[float, ...]:
        """The least and the greatest."""
        return (self.low, self.high)

    @property
    def repeats(self) -> bool:
        """Whether several trials are likely to have the same value."""
        return self.step is not None and (self.high - self.low) / self.step < MANY

    @property
    def tried(self) -> tuple[float, ...]:
        """The values that can be checked one by one: all where they are not too many, else the ends."""
        if self.step is None or not self.repeats:
            return self.ends
        return tuple(self.low + index * self.step for index in range(round((self.high - self.low) / self.step) + 1))

    def __str__(self) -> str:
        if self.step is not None and not (self.is_integer and self.step == 1):
            stop = Decimal(str(self.high)) + Decimal(str(self.step))  # which a range leaves out
            return f"range({self.low},{stop},{self.step})"
        text = f"interval({written(self.low)},{written(self.high)})"
        text = f"int({text})" if self.is_integer else text
        return f"tag(log, {text})" if self.log else text


Range = Choice | Numbers


def first_value(searched: Range, configured: Any) -> Any:
    """Return the configured value in the range's own words where it is one of its values, else the middle."""
    if not searched.holds(configured):
        return searched.middle
    if isinstance(searched, Choice):
        return next(value for value in searched.values if _same(value, configured))
    return int(configured) if searched.is_integer else float(configured)


def combinations(ranges: Mapping[str, Range], most: int) -> tuple[dict[str, Any], ...]:
    """Return what the ends of ranges can come to together: all of it, or each end once where that is too much.

    Args:
        ranges: By key.
        most: More combinations are too much.
    """
    return _together({key: given.ends for key, given in ranges.items()}, most)


def all_tried(ranges: Mapping[str, Range]) -> tuple[dict[str, Any], ...]:
    """Return the combinations of what can be checked one by one, up to `MANY` of them, else each value once."""
    return _together({key: given.tried for key, given in ranges.items()}, MANY)


def _together(values: Mapping[str, tuple[Any, ...]], most: int) -> tuple[dict[str, Any], ...]:
    if math.prod(map(len, values.values())) <= most:
        return tuple(dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values()))
    return tuple(_side_by_side(values))


def _side_by_side(values: Mapping[str, tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    for index in range(max(map(len, values.values()))):
        yield {key: mine[index % len(mine)] for key, mine in values.items()}


def _same(one: Any, other: Any) -> bool:
    # True is 1 to Python, and neither to a reader nor to a constructor.
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def written(value: Any) -> str:
    """Return a value as Hydra's grammar has it."""
    if isinstance(value, list | tuple):
        return f"[{','.join(written(item) for item in value)}]"
    if not isinstance(value, str):
        return json.dumps(value)
    if _PLAIN_WORD.match(value):
        return value
    # Within quotes a backslash means itself, but for those that stand before a quote.
    escaped = re.sub(r"(\\*)'", lambda found: found[1] * 2 + "\\'", value)
    ended = re.sub(r"\\+$", lambda found: found[0] * 2, escaped)
    return f"'{ended}'"
