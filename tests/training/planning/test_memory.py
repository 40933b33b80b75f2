"""Memory measured at two widths predicts the memory of other widths."""

from __future__ import annotations

import pytest
import torch

from dropsearch.training.planning.memory import Memory, free_memory, measure_memory
from dropsearch.training.protocols import TrainerSettings
from dropsearch.training.vectorized.trials import VectorizedTrials
from tests.training.conftest import Queue, make_factory, make_source, make_specs


def make_trials(width: int, batch: int = 8) -> VectorizedTrials:
    factory, source = make_factory("mlp"), make_source("mlp")
    source.batch_size = batch
    return VectorizedTrials(factory, source, TrainerSettings(2, "cpu"), Queue(make_specs("mlp", 4)), width)


def test_two_widths_predict_a_wider_one() -> None:
    memory = measure_memory(make_trials)
    four = measure_memory(lambda one_or_two: make_trials(4 if one_or_two == 2 else 3))
    assert four.total(2) == pytest.approx(memory.total(4), rel=0.1)


def test_row_holds_weights_gradients_and_adam_state() -> None:
    parameters = sum(p.numel() for p in make_factory("mlp")(make_specs("mlp", 1)[0]).parameters())
    assert measure_memory(lambda width: make_trials(width)).per_row > 4 * 4 * parameters


def test_larger_batches_need_more_memory() -> None:
    small, large = (measure_memory(lambda width, b=b: make_trials(width, b)) for b in (4, 20))
    assert large.per_row > small.per_row


def test_max_width() -> None:
    memory = Memory(fixed=100, per_row=10)
    assert memory.max_width(1000) == 70
    assert memory.max_width(50) == 1


def test_free_memory_is_divided_among_processes() -> None:
    here = free_memory(torch.device("cpu"))
    assert here > 2**20
    assert free_memory(torch.device("cpu"), 4) == pytest.approx(here / 4, rel=0.2)
