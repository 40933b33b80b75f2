"""Numbers of an arm or a contrast for tables, verdict and page, computed from the records."""

from __future__ import annotations

import math
from collections import Counter

from dropsearch.core.records import ArmOutcome, Comparison, Interval, Summary
from dropsearch.report.measured_values import finite, mean_interval
from dropsearch.stats.comparisons import shown_side


def measuring(summary: Summary) -> str:
    """Return the cost of the measures in seconds, and as a share of a run in one piece; empty without measures."""
    if summary.evidence is None:
        return ""
    seconds = summary.evidence.seconds
    in_one_piece = summary.seconds and not summary.trained_before
    share = f" ({100 * seconds / summary.seconds:.0f} % of the run)" if in_one_piece else ""
    return f"what dropout did in the winners was measured in {seconds:.1f} s{share}"


def states(outcome: ArmOutcome) -> dict[str, int]:
    """Return the number of search trials by final state."""
    counted = Counter(trial.state for trial in outcome.trials)
    return {state: counted[state] for state in ("COMPLETE", "PRUNED", "FAIL")}


def search_loss(outcome: ArmOutcome) -> float:
    """Return the objective (validation loss) of the chosen configuration in the search; NaN without one."""
    trial = outcome.chosen
    return outcome.monitor.objective(trial.best.objective) if trial and trial.best else math.nan


def objectives(outcome: ArmOutcome) -> list[float]:
    """Return the finite objectives of all search trials and retrainings of an arm."""
    trained = [*outcome.trials, *(result for confirmed in outcome.confirmed for result in confirmed.results)]
    found = [outcome.monitor.objective(trial.best.objective) for trial in trained if trial.best]
    return finite(found)


def confirmed_loss(outcome: ArmOutcome) -> float:
    """Return the winner's mean objective on fresh seeds: infinite if a seed diverged, NaN without a winner."""
    return outcome.monitor.objective(outcome.winner.mean_val_loss) if outcome.winner else math.nan


def gap(outcome: ArmOutcome) -> float:
    """Return confirmed minus search validation loss of the winner; a positive value means that the search was lucky.

    For a metric whose higher values are better, it is search minus confirmed.
    """
    return outcome.monitor.objective(confirmed_loss(outcome) - search_loss(outcome))


def test_acc(outcome: ArmOutcome) -> Interval:
    """Return the mean test accuracy over finite seeds with its 95 % interval; NaN before the test."""
    return mean_interval(outcome.test.acc if outcome.test else ())


def test_loss(outcome: ArmOutcome) -> Interval:
    """Return the mean test loss over finite seeds with its 95 % interval; NaN before the test."""
    return mean_interval(outcome.test.test_loss if outcome.test else ())


def tested(summary: Summary) -> dict[str, ArmOutcome]:
    """Return the arms with at least one finite score of the comparison metric, in the order of the run."""
    return {name: arm for name, arm in summary.arms.items() if finite(arm.scores(summary.comparison_metric))}


def shown(comparison: Comparison) -> bool:
    """Return whether a difference is shown, as decided by `stats.comparisons.shown_side`."""
    return shown_side(comparison) != 0


def missing_luck(summary: Summary) -> list[str]:
    """Return the sources of variation that the contrasts' intervals do not cover; if any, none is shown."""
    return list(dict.fromkeys(part for comparison in summary.contrasts for part in comparison.missing))


def reasons(outcome: ArmOutcome) -> Counter[str]:
    """Return the number of failed search trials by reason."""
    failed = (trial for trial in outcome.trials if trial.state == "FAIL")
    return Counter(trial.reason or "no reason recorded" for trial in failed)
