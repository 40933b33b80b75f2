"""When a difference is shown: the one rule, for reports and claims alike."""

from __future__ import annotations

from typing import Literal, Protocol

from dropsearch.core.records import Interval

SIGNIFICANT = 0.05
"""A difference is shown only if its p-value after Holm's adjustment is below this."""


class Contrast(Protocol):
    """A difference, and all that decides whether it is shown."""

    @property
    def difference(self) -> Interval:
        """The estimate and its 95 % interval."""
        ...

    @property
    def p_holm(self) -> float:
        """p value of the test, adjusted for all contrasts of its family."""
        ...

    @property
    def missing(self) -> tuple[str, ...]:
        """Luck that the interval and p leave out."""
        ...


def shown_side(found: Contrast) -> Literal[-1, 0, 1]:
    """Return the side of zero on which a difference is shown to lie: -1, 1, or 0 if it is not shown.

    A difference is shown if p after Holm is below 0.05, its interval excludes zero, and no luck is missing.
    """
    low, high = found.difference.low, found.difference.high
    if found.p_holm < SIGNIFICANT and not found.missing and (low > 0 or high < 0):
        return 1 if low > 0 else -1
    return 0


def minimum_seeds(contrasts: int, level: float = SIGNIFICANT) -> int:
    """The fewest paired seeds with which one of `contrasts` comparisons can fall below `level` after Holm.

    With n pairs that all point the same way the exact Wilcoxon p is 2 / 2^n; nothing smaller is possible.
    Raises ValueError unless `contrasts` is at least 1 and `level` lies in (0, 1).
    """
    if contrasts < 1 or not 0 < level < 1:
        raise ValueError(f"contrasts >= 1 and 0 < level < 1 must hold, got {contrasts} and {level}")
    seeds = 1
    while contrasts * 2.0 ** (1 - seeds) >= level:
        seeds += 1
    return seeds
