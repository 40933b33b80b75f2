from __future__ import annotations

import math

import pytest

from dropsearch.analysis.measures.overfitting import SERIES, VALUES, measure
from dropsearch.analysis.measures.protocol import NotMeasuredError
from dropsearch.core.records import EpochMetrics, TrialResult, TrialSpec


def trained(*losses: tuple[float, float]) -> TrialResult:
    """A training with these train and validation losses."""
    spec = TrialSpec("dropout", 0, 7, {}, lr=1e-3, weight_decay=0.0)
    curve = [EpochMetrics(epoch, train, 9.0, val) for epoch, (train, val) in enumerate(losses)]
    return TrialResult(spec, "COMPLETE", tuple(curve), 1.0)


def test_the_gap_is_that_of_the_kept_epoch_and_that_of_the_last():
    found = measure(trained((0.9, 1.0), (0.5, 0.75), (0.125, 0.875)))
    assert found.values == {"gap_best": 0.25, "gap_last": 0.75, "val_loss_best": 0.75}


def test_the_curve_of_gaps_counts_epochs_from_one():
    x, gaps = measure(trained((0.9, 1.0), (0.5, 0.75), (0.125, 0.875))).series["gap"]
    assert list(x) == [1, 2, 3]
    assert list(gaps) == pytest.approx([0.1, 0.25, 0.75])


def test_the_loss_as_trained_has_no_say_in_it():
    assert all(abs(value) < 1 for value in measure(trained((0.5, 0.75))).values.values())


def test_a_training_of_which_no_epoch_was_kept_has_no_gap_there():
    found = measure(trained((0.5, 0.7), (0.5, math.nan)))
    assert math.isnan(found.values["gap_last"])


@pytest.mark.parametrize(
    ("losses", "why"),
    [
        ([(0.5, 0.5 - 8.8e-8), (0.25, 0.25)], "equal up to rounding in every epoch"),
        ([(math.nan, 0.5), (math.nan, 0.4)], "no loss on a part of the training set"),
        ([(0.5, math.nan)], "logs no validation loss"),
    ],
)
def test_a_gap_that_cannot_be_measured_is_none_and_says_why(losses, why):
    with pytest.raises(NotMeasuredError, match=why):
        measure(trained(*losses))


def test_losses_that_agree_once_have_a_gap():
    assert measure(trained((0.5, 0.5), (0.25, 0.5))).values["gap_last"] == 0.25


def test_every_number_and_curve_is_described():
    found = measure(trained((0.5, 0.75)))
    assert (set(found.values), set(found.series)) == (set(VALUES), set(SERIES))
