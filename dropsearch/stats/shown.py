"""The rule that decides whether a difference is shown, for reports and claims."""

from __future__ import annotations

from typing import Literal, Protocol

from dropsearch.core.records import Interval

SIGNIFICANT = 0.05
"""A difference is shown only if its p-value after Holm's adjustment is below this."""


class Contrast(Protocol):
    """A difference with the values that decide whether it is shown."""

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
        """Sources of variation that the interval and p do not cover."""
        ...


def shown_side(found: Contrast) -> Literal[-1, 0, 1]:
    """Return the side of zero on which a difference is shown to lie: -1, 1, or 0 if it is not shown.

    A difference is shown if p after Holm is below 0.05, its interval excludes zero, and `missing` is empty.
    """
    low, high = found.difference.low, found.difference.high
    if found.p_holm < SIGNIFICANT and not found.missing and (low > 0 or high < 0):
        return 1 if low > 0 else -1
    return 0


def p_text(value: float) -> str:
    """Return a p-value with two digits, or more if rounding would move it across the significance level."""
    if value < 0.001:
        return "<0.001"
    texts = (f"{value:.{digits}g}" for digits in range(2, 18))
    return next(text for text in texts if (float(text) < SIGNIFICANT) is (value < SIGNIFICANT))


def minimum_seeds(contrasts: int, level: float = SIGNIFICANT) -> int:
    """Return the minimum number of paired seeds with which one of `contrasts` can be significant after Holm.

    The smallest exact Wilcoxon p with n pairs is 2 / 2^n.

    Raises:
        ValueError: `contrasts` is below 1, or `level` is not in (0, 1).
    """
    if contrasts < 1 or not 0 < level < 1:
        raise ValueError(f"contrasts >= 1 and 0 < level < 1 must hold, got {contrasts} and {level}")
    seeds = 1
    while contrasts * 2.0 ** (1 - seeds) >= level:
        seeds += 1
    return seeds
