"""Formatting of numbers: losses, rates, p-values, and the comparison metric."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dropsearch.core.override_text import written
from dropsearch.core.records import ArmOutcome, ComparisonMetric, Interval
from dropsearch.report.measured_values import mean_interval
from dropsearch.stats.comparisons import p_text

EMPTY = "-"


def shorten(text: str, size: int) -> str:
    """Return `text`, shortened in the middle if it is longer than `size`; the end of a path is the most specific."""
    if len(text) <= size:
        return text
    head = (size - 2) // 3
    return text[:head] + ".." + text[len(text) - (size - 2 - head) :]


def loss(value: float, *, sign: bool = False) -> str:
    """Return a loss with four decimals, or four digits if it is small, or the sign for a missing value."""
    if not math.isfinite(value):
        return EMPTY if math.isnan(value) else "diverged"
    has_decimals = value == 0 or 0.001 <= abs(value) < 10_000
    return unsigned_zero(f"{value:{'+' if sign else ''}{'.4f' if has_decimals else '.4g'}}")


def short(value: float) -> str:
    """Return a loss in at most ten characters: as `loss` does, with five digits from 100 on."""
    return f"{value:.5g}" if abs(value) >= 100 else loss(value)


def unsigned_zero(text: str) -> str:
    """Return a number as text; without its sign if its digits are all zero."""
    return text if float(text) else text.lstrip("+-")


def percent(value: float, digits: int = 2) -> str:
    """Return an accuracy in [0, 1] in percent, without the percent sign."""
    return f"{100 * value:.{digits}f}" if math.isfinite(value) else EMPTY


def points(value: float, digits: int = 2) -> str:
    """Return a signed difference of accuracies in percentage points; zero has no sign."""
    return unsigned_zero(f"{100 * value:+.{digits}f}") if math.isfinite(value) else EMPTY


def rate(value: float) -> str:
    """Return a dropout rate as text; a small one is not rounded to zero."""
    if not math.isfinite(value):
        return EMPTY
    return f"{value:.1g}" if 0 < value < 0.005 else f"{value:.2f}"


def setting(value: Any) -> str:
    """Return a value of any type as typed by a user; numbers have four digits."""
    return f"{value:.4g}" if isinstance(value, float) else EMPTY if value == EMPTY else written(value)


def probability(value: float) -> str:
    """Return a p-value as text, or the sign for a missing value."""
    return p_text(value) if math.isfinite(value) else EMPTY


def alike(values: Sequence[float], spread: float, *, sign: bool = False) -> list[str]:
    """Return numbers rounded to the second digit of their spread, or to four digits if it is 0 or unknown.

    Example:
        >>> alike([0.12345, 0.1201, 0.127], 0.0035)
        ['0.1235', '0.1201', '0.1270']
        >>> alike([3.00123e9, 2.9e9], 1e8, sign=True)
        ['+3.00e+09', '+2.90e+09']
        >>> alike([686440.0, 441994.0], 2e5)
        ['690000', '440000']
    """
    largest, form = max((abs(value) for value in values if math.isfinite(value)), default=0.0), ".4g"
    if 0 < spread < math.inf and largest > 0:
        place = math.floor(math.log10(spread)) - 1
        digits = min(max(math.floor(math.log10(largest)) - place, 1), 15)
        form = f".{max(-place, 0)}f" if place > -8 and largest < 1e6 else f".{digits}e"
        if place > 0:
            values = [round(value, -place) if math.isfinite(value) else value for value in values]
    return [_number(value, form, sign) for value in values]


def _number(value: float, form: str, sign: bool) -> str:
    return unsigned_zero(f"{value:{'+' if sign else ''}{form}}") if math.isfinite(value) else EMPTY


@dataclass(frozen=True)
class Scale:
    """Formats scores and differences of a comparison metric."""

    comparison_metric: ComparisonMetric

    def score(self, score: Interval) -> str:
        """Return a mean score with its interval over seeds, if it has one, and their unit."""
        unit = " %" if self.comparison_metric.percent else self._own_unit
        mean, low_text, high_text = self.sizes(score)
        return f"{mean}{unit}" + (
            f" (95 % CI over seeds {low_text} to {high_text}{unit})" if math.isfinite(score.low) else ""
        )

    def sizes(self, interval: Interval) -> list[str]:
        """Return a number and the ends of its interval, without signs and unit."""
        numbers = [interval.mean, interval.low, interval.high]
        if not self.comparison_metric.percent:
            return alike(numbers, _half(interval))
        # With few seeds the interval may exceed the range of accuracies, so it is clipped.
        digits = _digits(interval)
        return [percent(value if math.isnan(value) else min(max(value, 0.0), 1.0), digits) for value in numbers]

    def differences(self, interval: Interval) -> list[str]:
        """Return a difference and the ends of its interval, with signs and without unit."""
        numbers = [interval.mean, interval.low, interval.high]
        if not self.comparison_metric.percent:
            return signed(interval)
        digits = _digits(interval)
        return [points(value, digits) for value in numbers]

    @property
    def unit(self) -> str:
        """The unit of a difference after a space; empty if there is none."""
        return " points" if self.comparison_metric.percent or self.comparison_metric.unit == "%" else self._own_unit

    @property
    def _own_unit(self) -> str:
        return f" {self.comparison_metric.unit}" if self.comparison_metric.unit else ""


def with_unit(name: str, unit: str) -> str:
    """Return a name with its unit in brackets, if it has one."""
    return f"{name} ({unit})" if unit else name


def in_brackets(mean: str, low: str, high: str) -> str:
    """Return a number with its interval: `5.61 (5.40 to 5.83)`; with one power of ten for all, if they have one."""
    power = re.search(r"e[+-]\d+$", high)
    if power and all(text.endswith(power[0]) for text in (mean, low)):
        mean, low, high = (text.removesuffix(power[0]) for text in (mean, low, high))
        return f"{mean} ({low} to {high}){power[0]}"
    return f"{mean} ({low} to {high})"


def number(value: float) -> str:
    """Return any metric as text, or the sign for a missing value."""
    return f"{value:.4g}" if math.isfinite(value) else EMPTY


def signed(interval: Interval) -> list[str]:
    """Return a difference of any metric and the ends of its interval as text, with signs."""
    return alike([interval.mean, interval.low, interval.high], _half(interval), sign=True)


def _half(interval: Interval) -> float:
    return (interval.high - interval.low) / 2


def _digits(interval: Interval) -> int:
    """Return the decimals of shares in percent: two, or more where two would hide interval or number."""
    half, least = 100 * _half(interval), 1e-6
    shown = half if half > least else 100 * abs(interval.mean)  # an interval may be a point
    return 1 - math.floor(math.log10(shown)) if least < shown < 0.01 else 2


def judged(outcome: ArmOutcome, comparison_metric: ComparisonMetric) -> Interval:
    """Return the mean score of an arm over finite seeds, with its 95 % interval over seeds, on the same examples."""
    return mean_interval(outcome.scores(comparison_metric))
