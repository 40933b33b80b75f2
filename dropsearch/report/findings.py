"""What the records say about one arm or one contrast: the numbers behind tables, verdict and page."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from dropsearch.core.records import ArmOutcome, Comparison, Interval, Summary, TrialResult, TrialSpec
from dropsearch.report.measured_values import finite, mean_interval
from dropsearch.report.text.numbers import scores
from dropsearch.stats.shown import shown_side


def measuring(summary: Summary) -> str:
    """What it cost to measure what dropout did: seconds and share of the run; empty where that was not measured."""
    if summary.evidence is None:
        return ""
    seconds = summary.evidence.seconds
    share = 100 * seconds / summary.seconds if summary.seconds else math.nan
    return f"what dropout did in the winners was measured in {seconds:.1f} s ({share:.0f} % of the run)"


def states(outcome: ArmOutcome) -> dict[str, int]:
    """How many trials of the search ended in each state."""
    counted = Counter(trial.state for trial in outcome.trials)
    return {state: counted[state] for state in ("COMPLETE", "PRUNED", "FAIL")}


def chosen(outcome: ArmOutcome) -> TrialResult | None:
    """The search trial that an arm stands for: its confirmed winner, or else the best of the search."""
    if outcome.winner is None:
        return outcome.best
    if outcome.winner.trial is not None:
        return outcome.winner.trial
    number = outcome.winner.number
    return next((trial for trial in outcome.trials if trial.spec.number == number), None)


def rates(outcome: ArmOutcome) -> Mapping[str, float]:
    """The rates found, by site name: the winner's, or the best trial's without one."""
    spec = found(outcome)
    return spec.rates if spec else {}


def hyperparameters(outcome: ArmOutcome) -> Mapping[str, Any]:
    """What else was searched, as it was found: values by configuration key, of the winner or the best trial."""
    spec = found(outcome)
    return spec.hyperparameters if spec else {}


def found(outcome: ArmOutcome) -> TrialSpec | None:
    """The configuration that an arm found: the winner's, or the best trial's; None without one."""
    if outcome.winner is not None and outcome.winner.results:
        return outcome.winner.results[0].spec
    trial = chosen(outcome)
    return trial.spec if trial else None


def search_loss(outcome: ArmOutcome) -> float:
    """What is monitored (the validation loss) of the chosen configuration in the search, NaN without one."""
    trial = chosen(outcome)
    return outcome.monitor.objective(trial.best.objective) if trial and trial.best else math.nan


def confirmed_loss(outcome: ArmOutcome) -> float:
    """Its mean for the winner on fresh seeds: infinite where one diverged, NaN without a winner."""
    return outcome.monitor.objective(outcome.winner.mean_val_loss) if outcome.winner else math.nan


def gap(outcome: ArmOutcome) -> float:
    """Confirmed minus search validation loss of the winner: above zero, the search had been lucky.

    Where more of what is monitored is better, search minus confirmed.
    """
    return outcome.monitor.objective(confirmed_loss(outcome) - search_loss(outcome))


def test_acc(outcome: ArmOutcome) -> Interval:
    """Mean test accuracy over the seeds that ended finite, with its 95 % interval; NaN before the opening."""
    return mean_interval(outcome.test.acc if outcome.test else ())


def test_loss(outcome: ArmOutcome) -> Interval:
    """Mean test loss over the seeds that ended finite, with its 95 % interval; NaN before the opening."""
    return mean_interval(outcome.test.loss if outcome.test else ())


def tested(summary: Summary) -> dict[str, ArmOutcome]:
    """The arms with at least one finite score of what arms are judged by, in the order in which they ran."""
    return {name: arm for name, arm in summary.arms.items() if finite(scores(arm, summary.comparison_metric))}


def comparisons(summary: Summary, metric: str | None = None) -> list[Comparison]:
    """The planned contrasts of one metric: of that by which arms are judged, unless another is named."""
    wanted = summary.comparison_metric.metric if metric is None else metric
    return [comparison for comparison in summary.comparisons if comparison.metric == wanted]


def shown(comparison: Comparison) -> bool:
    """Whether a difference is told from none, as `stats.shown.shown_side` decides."""
    return shown_side(comparison) != 0


def missing_luck(summary: Summary) -> list[str]:
    """The luck that the intervals of contrasts leave out, so that no difference is shown."""
    return list(dict.fromkeys(part for comparison in comparisons(summary) for part in comparison.missing))


def pairs(summary: Summary) -> int:
    """The number of seeds of the comparison that has fewest; 0 where nothing was compared."""
    return min((len(comparison.differences) for comparison in comparisons(summary)), default=0)


def reasons(outcome: ArmOutcome) -> Counter[str]:
    """Why trials of the search failed, and how many for each reason."""
    failed = (trial for trial in outcome.trials if trial.state == "FAIL")
    return Counter(trial.reason or "no reason recorded" for trial in failed)
