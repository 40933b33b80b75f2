"""Measuring beside a trial leaves the module as it was."""

from __future__ import annotations

from typing import Any

import torch
from lightning import LightningModule, Trainer
from torch import nn

from dropsearch.training.adapters.validation_copy import ValidationAside


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
