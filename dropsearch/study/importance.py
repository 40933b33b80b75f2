"""Importance of the dropout rate of each site for the scores of a search."""

from __future__ import annotations

import math
from collections.abc import Mapping

from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState

from dropsearch.study.search_space import Space
from dropsearch.study.store import StudyStore
from dropsearch.study.studies import quiet_optuna

MIN_TRIALS = 10
"""Minimum number of complete trials for an estimate."""
GOOD_SHARE, MIN_GOOD = 0.1, 5
"""Share and minimum number of the trials that count as good; Optuna recommends at least five."""


def site_importances(store: StudyStore, space: Space) -> Mapping[str, float]:
    """Return the relative importance of each site's rate, by PED-ANOVA (Watanabe et al. 2023).

    PED-ANOVA compares the distribution of a rate among the good trials with that among all trials; it is
    deterministic. The importances sum to 1. They are NaN for sites without their own parameter, and for all sites
    if they cannot be estimated (see `unknown`).
    """
    unavailable = dict.fromkeys(space.sites, math.nan)
    if unknown(store, space):
        return unavailable
    shares = _shares(store, list(space.parameter_sites))
    total = sum(shares.values())
    return unavailable | {space.parameter_sites[name]: share / total for name, share in shares.items()}


def unknown(store: StudyStore, space: Space) -> str:
    """Return why the importance of single sites cannot be estimated, or an empty string."""
    if len(space.parameter_sites) < 2:
        return "fewer than two sites have a rate of their own"
    complete = _complete(store)
    if len(complete) < MIN_TRIALS:
        return f"only {len(complete)} of at least {MIN_TRIALS} required trials are complete"
    if len({trial.value for trial in complete}) == 1:
        return "all trials have the same score"
    if not any(_shares(store, list(space.parameter_sites)).values()):
        return "the rates of good trials do not differ from those of all trials"
    return ""


def _shares(store: StudyStore, parameters: list[str]) -> dict[str, float]:
    count = len(_complete(store))
    good = min(max(GOOD_SHARE, MIN_GOOD / count), 0.5)
    with quiet_optuna():
        evaluator = PedAnovaImportanceEvaluator(target_quantile=good)
        study = store.seen.study()
        importances = get_param_importances(study, evaluator=evaluator, params=parameters, normalize=False)
    return {name: importances[name] for name in parameters}


def _complete(store: StudyStore) -> list[FrozenTrial]:
    store.look()
    return store.seen.of(TrialState.COMPLETE)
