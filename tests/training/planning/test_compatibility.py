"""What keeps a module that somebody else wrote from being a row of an array."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from lightning import Trainer

from dropsearch.core.records import Monitor, TrialSpec
from dropsearch.datasets.user_data import UserData
from dropsearch.training.planning.compatibility import incompatibility
from dropsearch.training.sequential import quiet_lightning
from tests.user_modules import data, nets

SPEC = TrialSpec("dropout", 0, 3, {}, lr=1e-3, weight_decay=0.0)


def found(make: type, monitor: str = "val_loss") -> str:
    with quiet_lightning():
        trainer = Trainer(max_epochs=2, accelerator="cpu", barebones=True)
    rows = UserData(data.Digits(), "Digits").in_rows()
    return incompatibility(lambda spec: make(), rows, SPEC, Monitor(monitor), trainer)


@pytest.mark.parametrize("make", [nets.LitNet, nets.Deeper, nets.Tested, nets.Normed])
def test_an_ordinary_module_has_none(make: type):
    assert found(make) == ""


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (nets.Manual, "manual optimisation"),
        (nets.Scored, "f1 is a metric object that keeps state between steps"),
        (nets.Hooked, "the module defines on_train_epoch_end"),
        (nets.Warming, "training_step asks its Trainer for current_epoch"),
        (nets.Showing, "training_step asks its Trainer for optimizers"),
        (nets.Counting, "training_step uses batch_idx"),
        (nets.Keeping, "training_step keeps something in losses"),
    ],
)
def test_what_a_row_cannot_do_is_named(make: type, why: str):
    assert found(make) == why


class Seldom(nets.LitNet):
    """Changes its input by chance, so seldom that no comparison of numbers finds it."""

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> torch.Tensor:
        return super().training_step((-batch[0], batch[1]) if self.chance() < 1e-9 else batch, batch_idx)

    def chance(self) -> float:
        return random.random()


class SeldomByNumPy(Seldom):
    def chance(self) -> float:
        return float(np.random.random())


@pytest.mark.parametrize(("make", "name"), [(Seldom, "random"), (SeldomByNumPy, "numpy.random")])
def test_a_step_that_draws_random_numbers_of_its_own_is_one_however_seldom_they_matter(make: type, name: str):
    assert found(make) == f"training_step draws random numbers from {name}"


def test_a_monitor_that_a_step_does_not_log_is_one():
    assert found(nets.LitNet, "val_f1") == "validation_step does not log val_f1"


class Summed(nets.LitNet):
    def validation_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> None:
        self.log("val_loss", self(batch[0]).sum(), reduce_fx="sum")


class Rounded(nets.LitNet):
    def validation_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> None:
        self.log("val_loss", self(batch[0]).sum().item())


@pytest.mark.parametrize(("make", "why"), [(Summed, "in another way than by its mean"), (Rounded, "as a float")])
def test_what_is_logged_otherwise_than_by_a_mean_of_tensors_is_one(make: type, why: str):
    assert why in found(make)
