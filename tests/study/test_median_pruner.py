"""`StudyMedianPruner` prunes like Optuna's `MedianPruner`."""

from __future__ import annotations

import warnings

import optuna
from hypothesis import given
from hypothesis import strategies as st
from optuna.pruners import MedianPruner
from optuna.trial import TrialState, create_trial

from dropsearch.study.algorithms import StudyMedianPruner

values = st.dictionaries(st.integers(0, 4), st.one_of(st.integers(0, 9).map(float), st.just(float("nan"))), max_size=5)


@given(
    complete=st.lists(values, max_size=8),
    running=st.lists(values, min_size=1, max_size=4),
    startup=st.integers(0, 4),
    warmup=st.integers(0, 3),
)
def test_decisions_equal_optuna(
    complete: list[dict[int, float]], running: list[dict[int, float]], startup: int, warmup: int
) -> None:
    ours, theirs = StudyMedianPruner(startup, warmup), MedianPruner(startup, warmup)
    study = optuna.create_study()
    for done in [None, *complete]:
        if done is not None:
            study.add_trial(create_trial(state=TrialState.COMPLETE, value=1.0, intermediate_values=done))
        for curve in running:
            trial = create_trial(state=TrialState.RUNNING, intermediate_values=curve)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # numpy's, of a step at which all are NaN
                assert ours.prune(study, trial) == theirs.prune(study, trial)
