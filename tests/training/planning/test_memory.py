"""What an array takes is measured, and grows with its width as foretold."""

from __future__ import annotations

import pytest
import torch

from dropsearch.training.planning.memory import Memory, free_memory, measured
from dropsearch.training.protocols import TrainerSettings
from dropsearch.training.vectorized.trials import VectorizedTrials
from tests.training.conftest import Queue, make_factory, make_source, make_specs


def array(width: int, batch: int = 8) -> VectorizedTrials:
    factory, source = make_factory("mlp"), make_source("mlp")
    source.batch_size = batch
    return VectorizedTrials(factory, source, TrainerSettings(2, "cpu"), Queue(make_specs("mlp", 4)), width)


def test_what_two_widths_tell_foretells_a_wider_one() -> None:
    memory = measured(array)
    four = measured(lambda one_or_two: array(4 if one_or_two == 2 else 3))
    assert four.total(2) == pytest.approx(memory.total(4), rel=0.1)


def test_a_row_holds_at_least_weights_gradients_and_adams_two_moments() -> None:
    parameters = sum(p.numel() for p in make_factory("mlp")(make_specs("mlp", 1)[0]).parameters())
    assert measured(lambda width: array(width)).a_row > 4 * 4 * parameters


def test_larger_batches_take_more() -> None:
    small, large = (measured(lambda width, b=b: array(width, b)) for b in (4, 20))
    assert large.a_row > small.a_row


def test_no_more_trials_than_fit_and_always_one() -> None:
    memory = Memory(fixed=100, a_row=10)
    assert memory.widest(1000) == 70
    assert memory.widest(50) == 1


def test_free_memory_is_shared_among_processes() -> None:
    here = free_memory(torch.device("cpu"))
    assert here > 2**20
    assert free_memory(torch.device("cpu"), 4) == pytest.approx(here / 4, rel=0.2)
