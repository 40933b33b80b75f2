"""The budget of a run: its limit, what the parts of the run cost, and what it buys."""

from __future__ import annotations

import dataclasses
import itertools
import math
import statistics
from collections.abc import Mapping

from dropsearch.config.budget import parsed
from dropsearch.core.errors import InputError
from dropsearch.core.preparation import preparing
from dropsearch.core.processes import Stopwatch, slowness
from dropsearch.core.records import ArmOutcome, ComparisonMetric, TrialPhase
from dropsearch.experiment.allocation import Costs, enough
from dropsearch.experiment.arm_runner import ArmRunner
from dropsearch.experiment.budget import BudgetedTraining
from dropsearch.experiment.context import ExperimentContext
from dropsearch.experiment.paces import REPORT_SECONDS, TEST_SHARE, TRACKING_SECONDS, Pace, searched_share
from dropsearch.experiment.pilot import evidence_pace, pilots
from dropsearch.experiment.winners import measuring_threads
from dropsearch.report.numbers import Scale
from dropsearch.stats.comparisons import minimum_seeds, planned_contrasts
from dropsearch.tracking import tracker_names
from dropsearch.training.protocols import Engine

MOST_EVIDENCE = 0.4
"""Maximum share of a budget for evidence on eight seeds of each arm."""


class RunBudget:
    """The budget that the configuration of a run sets.

    Args:
        context: What the run consists of; where time is short, its evidence is turned off.
    """

    training: BudgetedTraining
    """Search and confirmation, once they have begun."""

    def __init__(self, context: ExperimentContext, engine: Engine, watch: Stopwatch) -> None:
        limit, config = parsed(context.config.budget or ""), context.config
        assert limit is not None, "checked with the configuration"
        self._context, self._available = context, limit.seconds or limit.trials
        self._clock = watch.elapsed if limit.seconds else None
        self._costs = Costs(len(config.arms), 1.0, 1.0, screening=config.confirm.screening_seeds)
        self.paces: Mapping[TrialPhase, Pace] | None = None
        """Measured durations of training, in a budget of time."""
        self.slow = 1.0
        """By what the machine multiplies the durations of reports."""
        self.remarks: list[str] = []
        """Notes of the run."""
        if self._clock is not None:
            self.paces, self.slow = measured_paces(context, engine), slowness()
            self._costs = measured_costs(context, self.paces, self.slow)
            if self._costs.arms * 8 * self._costs.model > MOST_EVIDENCE * self._available:
                config.evidence.name, self._costs = "off", dataclasses.replace(self._costs, model=0.0)
                self.remarks.append(
                    "the budget leaves no time for evidence: use task=evidence to measure it afterwards"
                )
        used = self._clock() if self._clock else 0.0
        enough(self._costs, self._available, used, in_time=self._clock is not None)

    def begin(self, arm_runner: ArmRunner) -> None:
        """Decide what the arms train at first."""
        contrasts = max(len(planned_contrasts(self._context.config.arms)), 1)
        self.training = BudgetedTraining(
            arm_runner, self._costs, self._available, self._clock, slowness, minimum_seeds(contrasts)
        )

    def describe(self, spread: float | None = None, unit: str = "") -> str:
        """Return what the budget buys; `spread` is the standard deviation of paired differences, if it is known."""
        return self.training.describe(len(planned_contrasts(self._context.config.arms)), spread, unit)

    def note(self, arms: Mapping[str, ArmOutcome]) -> str:
        """Return a note on what the budget bought, in the unit of the comparison metric if its spread is known."""
        metric = self._context.modules.comparison_metric
        spread = spread_between_seeds(arms, metric)
        size = None if spread is None else spread * (100 if metric.percent else 1)
        bought = self.describe(size, Scale(metric).unit.strip() or metric.label)
        return f"the budget of {self._context.config.budget} bought {bought}"


def measured_paces(context: ExperimentContext, engine: Engine) -> Mapping[TrialPhase, Pace]:
    """Return the measured durations of search and confirmation; an InputError if no trial ended an epoch."""
    with preparing("measuring the speed of search and confirmation"):
        paces = pilots(context, engine)
    if "search" not in paces:
        raise InputError("budget needs a measured speed, but no trial ended an epoch: set study.n_trials instead")
    return paces


def measured_costs(context: ExperimentContext, paces: Mapping[TrialPhase, Pace], slow: float = 1.0) -> Costs:
    """Return the measured costs of the parts of a run, in seconds.

    `slow` multiplies the durations of reports, which are those of an idle machine.
    """
    config = context.config
    with measuring_threads(context):
        model = evidence_pace(context, thorough=True)
    epochs = config.trainer.max_epochs
    searched = epochs * searched_share(config)
    fixed = REPORT_SECONDS + (TRACKING_SECONDS if tracker_names(config.tracking.name) else 0.0)
    search, confirm = paces["search"], paces["confirm"]
    return Costs(
        len(config.arms),
        searched * search.of(searched),
        epochs * confirm.of(epochs),
        (1 + TEST_SHARE) * model,
        slow * fixed,
        config.confirm.screening_seeds,
        rows=search.at_once,
        confirm_rows=confirm.at_once,
        idle=search.idle,
        slow=slow,
    )


def spread_between_seeds(arms: Mapping[str, ArmOutcome], metric: ComparisonMetric) -> float | None:
    """Return the median standard deviation of paired differences between arms, in the metric; None if unknown."""
    scored = [(outcome.winner, outcome.scores(metric)) for outcome in arms.values()]
    scores = [dict(zip(winner.seeds, each, strict=True)) for winner, each in scored if winner and each]
    found = []
    for one, other in itertools.combinations(scores, 2):
        differences = [one[seed] - other[seed] for seed in one if seed in other]
        finite = [each for each in differences if math.isfinite(each)]
        if len(finite) > 1:
            found.append(statistics.stdev(finite))
    known = [each for each in found if each > 0]
    return statistics.median(known) if known else None
