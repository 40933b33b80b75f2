from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss
from torch import Tensor

from dropsearch.analysis.measures.scores import Scores, accuracy, calibration_error

seeds = st.integers(0, 2**31)


def drawn(seed: int, size: int = 60, classes: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(size, classes, generator=generator, dtype=torch.float64)
    targets = torch.randint(classes, (size,), generator=generator)
    targets[:classes] = torch.arange(classes)
    return logits.log_softmax(-1), targets


@settings(max_examples=25)
@given(seeds)
def test_scores_are_those_of_scikit_learn(seed: int) -> None:
    log_probabilities, targets = drawn(seed)
    probabilities, found = log_probabilities.exp().numpy(), Scores.of(log_probabilities, targets)
    assert found.nll == pytest.approx(log_loss(targets, probabilities))
    assert found.brier == pytest.approx(brier_score_loss(targets, probabilities, scale_by_half=False))
    assert found.accuracy == accuracy_score(targets, probabilities.argmax(-1))


def by_a_loop(probabilities: np.ndarray, targets: np.ndarray, bins: int) -> float:
    error = 0.0
    for number in range(bins):
        low, high = number / bins, (number + 1) / bins
        inside = [i for i, row in enumerate(probabilities) if low < row.max() <= high]
        if inside:
            right = sum(probabilities[i].argmax() == targets[i] for i in inside) / len(inside)
            sure = sum(probabilities[i].max() for i in inside) / len(inside)
            error += len(inside) / len(targets) * abs(right - sure)
    return error


@settings(max_examples=50)
@given(seeds, st.integers(1, 20))
def test_the_calibration_error_is_that_of_a_loop_over_bins(seed: int, bins: int) -> None:
    log_probabilities, targets = drawn(seed)
    probabilities = log_probabilities.exp()
    expected = by_a_loop(probabilities.numpy(), targets.numpy(), bins)
    assert calibration_error(probabilities, targets, bins) == pytest.approx(expected)


def test_certainty_that_is_right_is_calibrated_and_that_is_wrong_is_not() -> None:
    sure = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    assert calibration_error(sure, torch.tensor([0, 1])) == 0
    assert calibration_error(sure, torch.tensor([1, 0])) == 1


def test_an_example_without_a_number_has_no_scores() -> None:
    log_probabilities, targets = drawn(1)
    log_probabilities[3] = math.nan
    found = Scores.of(log_probabilities, targets)
    assert all(map(math.isnan, (found.nll, found.brier, found.accuracy, found.ece)))
    assert math.isnan(accuracy(log_probabilities, targets))
