"""How numbers of what arms are compared by are written: accuracies in per cent, other metrics as they are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from dropsearch.core.records import ArmOutcome, ComparisonMetric, Interval
from dropsearch.report.bands import mean_interval
from dropsearch.report.text.numbers import EMPTY, percent, points


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


def leader(means: Mapping[str, float], comparison_metric: ComparisonMetric) -> str:
    """The name with the best mean."""
    return (max if comparison_metric.higher_is_better else min)(means, key=means.__getitem__)
