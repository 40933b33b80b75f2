"""Optuna's median rule for long studies: the values of each epoch are kept sorted, and not read again per report."""

from __future__ import annotations

import math
from bisect import insort
from collections import defaultdict
from statistics import median

import optuna
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial, TrialState


class SortedMedianPruner(BasePruner):
    """Prunes as `optuna.pruners.MedianPruner` does in a study that is minimized. An instance is for one study.

    A trial is pruned whose least value so far is above the median of what the complete trials had at the same step.

    Args:
        n_startup_trials: Nothing is pruned before so many trials are complete.
        warmup_steps: Nothing is pruned at the first steps.
    """

    def __init__(self, n_startup_trials: int, warmup_steps: int) -> None:
        self._startup, self._warmup = n_startup_trials, warmup_steps
        self._known: set[int] = set()
        self._values: dict[int, list[float]] = defaultdict(list)

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Return whether a trial is to stop."""
        complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        self._take_in(complete)
        step = trial.last_step
        if step is None or not complete or len(complete) < self._startup or step < self._warmup:
            return False
        finite = [value for value in trial.intermediate_values.values() if not math.isnan(value)]
        if not finite:
            return True
        others = self._values.get(step)
        return bool(others) and min(finite) > median(others)

    def _take_in(self, complete: list[FrozenTrial]) -> None:
        if len(complete) == len(self._known):
            return
        for trial in complete:
            if trial.number not in self._known:
                self._known.add(trial.number)
                for step, value in trial.intermediate_values.items():
                    if not math.isnan(value):
                        insort(self._values[step], value)
