"""Measuring beside a trial leaves the module as it was."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from lightning import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader

from dropsearch.training.adapters.validation_copy import ValidationAside
from dropsearch.training.protocols import TrainerSettings
from dropsearch.training.trainers import make_trainer, quiet_lightning


class Averaged(LightningModule):
    """Validates with other weights, as a module with an average of its weights does, and fails in between."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def on_validation_start(self) -> None:
        with torch.no_grad():
            self.layer.weight.fill_(7.0)

    def validation_step(self, batch: Any, index: int) -> None:
        raise ValueError("another batch than this was expected")


def test_weights_that_a_hook_exchanged_are_put_back_after_an_error() -> None:
    module = Averaged()
    before = module.layer.weight.detach().clone()
    trainer = Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu")
    assert ValidationAside([torch.ones(1, 2)]).measure(module, trainer) == {}
    assert torch.equal(module.layer.weight, before)


class Holding(LightningModule):
    """Drops by a function that reads the mode of the module that it was made for."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)
        self.drop = lambda x: F.dropout(x, 0.9, self.training)

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        return self.layer(batch).sum()

    def validation_step(self, batch: Any, index: int) -> None:
        self.log("kept", self.drop(batch).mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)

    def on_train_epoch_end(self) -> None:
        self.found = ValidationAside([torch.ones(1, 50)]).measure(self, self.trainer)
        assert self.training


def test_functions_that_read_the_mode_of_the_module_drop_nothing() -> None:
    module, loader = Holding(), DataLoader([torch.ones(2)])
    with quiet_lightning():
        make_trainer(module, TrainerSettings(1, "cpu"), [], max_epochs=1).fit(module, loader, loader)
    assert module.found == {"kept": 1.0}
