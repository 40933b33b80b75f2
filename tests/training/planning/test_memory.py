"""Memory measured at two widths predicts the memory of other widths."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from dropsearch.training.planning.memory import Memory, free_memory, measure_memory
from dropsearch.training.protocols import TrainerSettings
from dropsearch.training.vectorized.row_source import RowSource
from dropsearch.training.vectorized.trials import VectorizedTrials
from tests.training.conftest import Queue, make_factory, make_source, make_specs
from tests.training.vectorized.laws import Case, trials
from tests.user_modules.nets import LitNet


def make_trials(width: int, batch: int = 8) -> VectorizedTrials:
    factory, source = make_factory("mlp"), make_source("mlp")
    source.batch_size = batch
    return VectorizedTrials(RowSource(factory, source, TrainerSettings(2, "cpu"), Queue(make_specs("mlp", 4))), width)


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


class Large(Dataset):
    """Random examples that are too many to be held in memory, as far as anybody can see."""

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.randn(64), index % 10


class LargeData(LightningDataModule):
    """A loader with worker processes."""

    def __init__(self, workers: int) -> None:
        super().__init__()
        self.workers = workers

    def train_dataloader(self) -> DataLoader[object]:
        ahead = {"num_workers": self.workers, "prefetch_factor": 3} if self.workers else {}
        return DataLoader(Large(), batch_size=4, **ahead)  # type: ignore[arg-type]

    def val_dataloader(self) -> DataLoader[object]:
        return DataLoader(Large(), batch_size=4)


def test_batches_that_are_read_ahead_are_counted() -> None:
    batch, held, memories = 4 * (64 * 4 + 8), [], []
    for workers in (0, 2):
        case = Case(LitNet, LargeData(workers))
        rows = case.source.in_rows()
        assert rows is not None
        made: list[VectorizedTrials] = []

        def make(width: int, case: Case = case, rows: Any = rows, made: list[Any] = made) -> VectorizedTrials:
            made.append(VectorizedTrials(RowSource(case.make_module, rows, case.settings, Queue(trials(2))), width))
            return made[-1]

        memories.append(measure_memory(make))
        held.append([each.stack.batches.held() for each in made])
        for each in made:
            each.stack.batches.close()
    assert held == [[2 * batch, 4 * batch], [8 * batch, 10 * batch]]
    assert memories[1].fixed > memories[0].fixed
    assert min(memory.per_row for memory in memories) > 2 * batch


def test_max_width() -> None:
    memory = Memory(fixed=100, per_row=10)
    assert memory.max_width(1000) == 70
    assert memory.max_width(50) == 1


def test_free_memory_is_divided_among_processes() -> None:
    here = free_memory(torch.device("cpu"))
    assert here > 2**20
    assert free_memory(torch.device("cpu"), 4) == pytest.approx(here / 4, rel=0.2)
