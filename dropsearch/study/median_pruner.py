"""A median pruner for long studies, which computes each median once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import median

import optuna
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial, TrialState

MOST_KEPT = 64
"""For how many sets of complete trials medians are kept."""


class StudyMedianPruner(BasePruner):
    """Prunes like `optuna.pruners.MedianPruner` in a study that is minimized. Use one instance per study.

    A trial is pruned if its lowest value so far is above the median of the complete trials' values at the same step.

    Args:
        n_startup_trials: Number of complete trials before pruning starts.
        warmup_steps: Number of first steps at which no trial is pruned.
    """

    def __init__(self, n_startup_trials: int, warmup_steps: int) -> None:
        self._startup, self._warmup = n_startup_trials, warmup_steps
        self._medians: dict[tuple[int, ...], dict[int, float | None]] = {}
        """By the complete trials that are known, the median of their values at each step."""

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Return whether to prune a trial."""
        return self.prunes(trial, lambda: study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))

    def prunes(self, trial: FrozenTrial, complete_trials: Callable[[], Sequence[FrozenTrial]]) -> bool:
        """Do the same without a study; `complete_trials` is called only where a trial may be pruned."""
        step = trial.last_step
        if step is None or step < self._warmup:
            return False
        complete = complete_trials()
        if not complete or len(complete) < self._startup:
            return False
        finite = [value for value in trial.intermediate_values.values() if not math.isnan(value)]
        if not finite:
            return True
        others = self._median(complete, step)
        return others is not None and min(finite) > others

    def _median(self, complete: Sequence[FrozenTrial], step: int) -> float | None:
        known = tuple([trial.number for trial in complete])
        medians = self._medians.pop(known, {})
        self._medians[known] = medians  # the newest is the last
        if len(self._medians) > MOST_KEPT:
            del self._medians[next(iter(self._medians))]
        if step not in medians:
            values = [trial.intermediate_values.get(step, math.nan) for trial in complete]
            finite = [value for value in values if not math.isnan(value)]
            medians[step] = median(finite) if finite else None
        return medians[step]
