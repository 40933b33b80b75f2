from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from dropsearch.analysis.measures.scores import RANGE, fitted_temperature


def labelled(seed: int, size: int = 400) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and targets drawn from the probabilities that they say."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(size, 3, generator=generator)
    return logits, torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]


@settings(max_examples=20)
@given(st.integers(0, 2**31), st.floats(0.2, 5))
def test_the_temperature_scales_with_the_logits(seed: int, factor: float) -> None:
    logits, targets = labelled(seed)
    assert fitted_temperature(factor * logits, targets) == pytest.approx(
        factor * fitted_temperature(logits, targets), rel=2e-3
    )


@settings(max_examples=20)
@given(st.integers(0, 2**31), st.floats(0.1, 10))
def test_no_other_temperature_has_less_loss(seed: int, other: float) -> None:
    logits, targets = labelled(seed)
    best = fitted_temperature(logits, targets)
    assert F.cross_entropy(logits / best, targets) <= F.cross_entropy(logits / other, targets) + 1e-6


def test_honest_logits_want_a_temperature_near_one() -> None:
    assert fitted_temperature(*labelled(1, size=20_000)) == pytest.approx(1, abs=0.05)


def test_a_network_without_errors_wants_the_lowest_temperature() -> None:
    logits, _ = labelled(2)
    assert fitted_temperature(logits, logits.argmax(-1)) == pytest.approx(RANGE[0], rel=0.01)


def test_logits_that_are_not_finite_have_no_temperature() -> None:
    logits, targets = labelled(3)
    logits[0, 0] = math.inf
    assert math.isnan(fitted_temperature(logits, targets))
