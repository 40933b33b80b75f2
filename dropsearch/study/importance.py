"""How much the dropout rate of each site mattered to the scores of a search."""

from __future__ import annotations

import math
from collections.abc import Mapping

from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState

from dropsearch.study.search_space import Space
from dropsearch.study.store import StudyStore
from dropsearch.study.studies import quiet_optuna

FEWEST = 10
"""Complete trials below which nothing is said."""
GOOD_SHARE, FEWEST_GOOD = 0.1, 5
"""Which trials are the good ones: the best tenth, and not fewer than the five that Optuna advises."""


def site_importances(store: StudyStore, space: Space) -> Mapping[str, float]:
    """Share of each site in what the rates explain of being a good trial, by PED-ANOVA (Watanabe et al. 2023).

    It asks how far the rates of the good trials lie elsewhere than those of all trials. No chance is in it. NaN for a
    site whose rate no parameter of its own decides, and for all of them where nothing can be said: see `unknown`.

    Args:
        store: The study of an arm's search.
        space: What its parameters mean.
    """
    nothing = dict.fromkeys(space.sites, math.nan)
    if unknown(store, space):
        return nothing
    shares = _shares(store, list(space.parameter_sites))
    total = sum(shares.values())
    return nothing | {space.parameter_sites[name]: share / total for name, share in shares.items()}


def unknown(store: StudyStore, space: Space) -> str:
    """Return why a search says nothing about the importance of single sites; empty where it does."""
    if len(space.parameter_sites) < 2:
        return "no two sites have rates of their own"
    complete = _complete(store)
    if len(complete) < FEWEST:
        return f"{len(complete)} complete trials are too few: it takes {FEWEST}"
    if len({trial.value for trial in complete}) == 1:
        return "all trials scored alike"
    if not any(_shares(store, list(space.parameter_sites)).values()):
        return "the rates of the good trials are those of all"
    return ""


def _shares(store: StudyStore, parameters: list[str]) -> dict[str, float]:
    count = len(_complete(store))
    good = min(max(GOOD_SHARE, FEWEST_GOOD / count), 0.5)
    with quiet_optuna():
        evaluator = PedAnovaImportanceEvaluator(target_quantile=good)
        study = store.seen.study()
        found = get_param_importances(study, evaluator=evaluator, params=parameters, normalize=False)
    return {name: found[name] for name in parameters}


def _complete(store: StudyStore) -> list[FrozenTrial]:
    store.look()
    return store.seen.of(TrialState.COMPLETE)
