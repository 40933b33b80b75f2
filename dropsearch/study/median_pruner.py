"""A median pruner for long studies, which keeps the values of each epoch sorted."""

from __future__ import annotations

import math
from bisect import insort
from collections import defaultdict
from statistics import median

import optuna
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial, TrialState


class SortedMedianPruner(BasePruner):
    """Prunes like `optuna.pruners.MedianPruner` in a study that is minimized. Use one instance per study.

    A trial is pruned if its lowest value so far is above the median of the complete trials' values at the same step.

    Args:
        n_startup_trials: Number of complete trials before pruning starts.
        warmup_steps: Number of first steps at which no trial is pruned.
    """

    def __init__(self, n_startup_trials: int, warmup_steps: int) -> None:
        self._startup, self._warmup = n_startup_trials, warmup_steps
        self._added: set[int] = set()
        self._values: dict[int, list[float]] = defaultdict(list)

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Return whether to prune a trial."""
        complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        self._add(complete)
        step = trial.last_step
        if step is None or not complete or len(complete) < self._startup or step < self._warmup:
            return False
        finite = [value for value in trial.intermediate_values.values() if not math.isnan(value)]
        if not finite:
            return True
        others = self._values.get(step)
        return bool(others) and min(finite) > median(others)

    def _add(self, complete: list[FrozenTrial]) -> None:
        if len(complete) == len(self._added):
            return
        for trial in complete:
            if trial.number not in self._added:
                self._added.add(trial.number)
                for step, value in trial.intermediate_values.items():
                    if not math.isnan(value):
                        insort(self._values[step], value)
