"""How numbers are written: losses, rates, p-values, and what arms are compared by."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from dropsearch.core.records import ArmOutcome, ComparisonMetric, Interval
from dropsearch.core.records.ranges import written
from dropsearch.report.measured_values import mean_interval

EMPTY = "-"


def shorten(text: str, size: int) -> str:
    """`text`, with its middle left out where it is longer than `size`: the end of a path tells most."""
    if len(text) <= size:
        return text
    head = (size - 2) // 3
    return text[:head] + ".." + text[len(text) - (size - 2 - head) :]


def loss(value: float) -> str:
    """A loss in nats, or its lack."""
    return f"{value:.4f}" if math.isfinite(value) else EMPTY if math.isnan(value) else "diverged"


def percent(value: float) -> str:
    """An accuracy in [0, 1] as per cent, without the sign."""
    return f"{100 * value:.2f}" if math.isfinite(value) else EMPTY


def points(value: float) -> str:
    """A difference of accuracies in percentage points, signed, and 0.00 without one."""
    if not math.isfinite(value):
        return EMPTY
    text = f"{100 * value:+.2f}"
    return text[1:] if float(text) == 0 else text


def rate(value: float) -> str:
    """A dropout rate."""
    return f"{value:.2f}" if math.isfinite(value) else EMPTY


def setting(value: Any) -> str:
    """A value of any kind, as it is typed; a number with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else EMPTY if value == EMPTY else written(value)


def probability(value: float) -> str:
    """A p-value; small ones are not rounded to zero."""
    if not math.isfinite(value):
        return EMPTY
    return f"{value:.4f}" if value >= 0.0001 else "<0.0001"


@dataclass(frozen=True)
class Scale:
    """Writes scores and differences of one judge."""

    comparison_metric: ComparisonMetric

    def value(self, score: float) -> str:
        """A score with its unit."""
        return f"{percent(score)} %" if self.comparison_metric.percent else number(score)

    def interval(self, low: float, high: float) -> str:
        """Two scores and their unit."""
        if self.comparison_metric.percent:
            # With few seeds the interval of a mean is wide enough to leave what an accuracy can be.
            return f"{percent(max(low, 0.0))} to {percent(min(high, 1.0))} %"
        return f"{number(low)} to {number(high)}"

    def size(self, difference: float) -> str:
        """How large a difference is, without its unit."""
        return f"{100 * difference:.2f}" if self.comparison_metric.percent else number(difference)

    @property
    def unit(self) -> str:
        """The unit of a difference, with a space before it; empty where there is none."""
        return " points" if self.comparison_metric.percent else ""

    def difference(self, difference: float) -> str:
        """A signed difference, without its unit."""
        return points(difference) if self.comparison_metric.percent else signed(difference)


def number(value: float) -> str:
    """A metric of any kind, or its lack."""
    return f"{value:.4g}" if math.isfinite(value) else EMPTY


def signed(value: float) -> str:
    """A difference of such metrics."""
    return f"{value:+.4g}" if math.isfinite(value) else EMPTY


def scores(outcome: ArmOutcome, comparison_metric: ComparisonMetric) -> tuple[float, ...]:
    """What an arm is judged by, one score a seed; empty where it has none."""
    if comparison_metric.scores == "val_loss":
        losses = outcome.winner.val_loss if outcome.winner else ()
        return tuple(outcome.monitor.objective(loss) for loss in losses)
    if outcome.test is None:
        return ()
    return outcome.test.acc if comparison_metric.scores == "test_acc" else outcome.test.loss


def judged(outcome: ArmOutcome, comparison_metric: ComparisonMetric) -> Interval:
    """The mean of those scores over the seeds that ended finite, with its 95 % interval."""
    return mean_interval(scores(outcome, comparison_metric))
