"""Formatting of numbers: losses, rates, p-values, and the comparison metric."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from dropsearch.core.records import ArmOutcome, ComparisonMetric, Interval
from dropsearch.core.records.ranges import written
from dropsearch.report.measured_values import mean_interval

EMPTY = "-"


def shorten(text: str, size: int) -> str:
    """Return `text`, shortened in the middle if it is longer than `size`; the end of a path is the most specific."""
    if len(text) <= size:
        return text
    head = (size - 2) // 3
    return text[:head] + ".." + text[len(text) - (size - 2 - head) :]


def loss(value: float) -> str:
    """Return a loss in nats, or the sign for a missing value."""
    return f"{value:.4f}" if math.isfinite(value) else EMPTY if math.isnan(value) else "diverged"


def percent(value: float) -> str:
    """Return an accuracy in [0, 1] in percent, without the percent sign."""
    return f"{100 * value:.2f}" if math.isfinite(value) else EMPTY


def points(value: float) -> str:
    """Return a signed difference of accuracies in percentage points; zero has no sign."""
    if not math.isfinite(value):
        return EMPTY
    text = f"{100 * value:+.2f}"
    return text[1:] if float(text) == 0 else text


def rate(value: float) -> str:
    """Return a dropout rate as text."""
    return f"{value:.2f}" if math.isfinite(value) else EMPTY


def setting(value: Any) -> str:
    """Return a value of any type as typed by a user; numbers have four digits."""
    return f"{value:.4g}" if isinstance(value, float) else EMPTY if value == EMPTY else written(value)


def probability(value: float) -> str:
    """Return a p-value as text; small ones are not rounded to zero."""
    if not math.isfinite(value):
        return EMPTY
    return f"{value:.4f}" if value >= 0.0001 else "<0.0001"


@dataclass(frozen=True)
class Scale:
    """Formats scores and differences of a comparison metric."""

    comparison_metric: ComparisonMetric

    def value(self, score: float) -> str:
        """Return a score with its unit."""
        return f"{percent(score)} %" if self.comparison_metric.percent else number(score)

    def interval(self, low: float, high: float) -> str:
        """Return two scores with their unit."""
        if self.comparison_metric.percent:
            # With few seeds the interval may exceed the range of accuracies, so it is clipped.
            return f"{percent(max(low, 0.0))} to {percent(min(high, 1.0))} %"
        return f"{number(low)} to {number(high)}"

    def size(self, difference: float) -> str:
        """Return the size of a difference without its unit."""
        return f"{100 * difference:.2f}" if self.comparison_metric.percent else number(difference)

    @property
    def unit(self) -> str:
        """The unit of a difference after a space; empty if there is none."""
        return " points" if self.comparison_metric.percent else ""

    def difference(self, difference: float) -> str:
        """Return a signed difference without its unit."""
        return points(difference) if self.comparison_metric.percent else signed(difference)


def number(value: float) -> str:
    """Return any metric as text, or the sign for a missing value."""
    return f"{value:.4g}" if math.isfinite(value) else EMPTY


def signed(value: float) -> str:
    """Return a signed difference of metrics as text."""
    return f"{value:+.4g}" if math.isfinite(value) else EMPTY


def scores(outcome: ArmOutcome, comparison_metric: ComparisonMetric) -> tuple[float, ...]:
    """Return the scores of the comparison metric of an arm, one per seed; empty if there are none."""
    if comparison_metric.scores == "val_loss":
        losses = outcome.winner.val_loss if outcome.winner else ()
        return tuple(outcome.monitor.objective(loss) for loss in losses)
    if outcome.test is None:
        return ()
    return outcome.test.acc if comparison_metric.scores == "test_acc" else outcome.test.loss


def judged(outcome: ArmOutcome, comparison_metric: ComparisonMetric) -> Interval:
    """Return the mean score of an arm over finite seeds, with its 95 % interval."""
    return mean_interval(scores(outcome, comparison_metric))
