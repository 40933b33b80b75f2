"""A step of a LightningModule as the `forward` of a module."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from lightning import LightningModule
from torch import nn

from dropsearch.core.global_state import changed
from dropsearch.training.logged_steps import call_step
from dropsearch.training.vectorized.effects import value_of


class StepCall(nn.Module):
    """Exposes a step of a module as `forward`, as `functional_call` requires."""

    def __init__(self, module: LightningModule, name: str = "training_step") -> None:
        super().__init__()
        self.module = module
        self.name = name

    def forward(self, batch: Any, batch_idx: int) -> Any:
        """Run the step; a returned loss is a tensor, even if it comes from a metric object."""
        with report_compiling():
            result = value_of(call_step(getattr(self.module, self.name), batch, batch_idx))
            has_loss = isinstance(result, Mapping) and "loss" in result
            return {**result, "loss": value_of(result["loss"])} if has_loss else result


def report_compiling() -> AbstractContextManager[None]:
    """Make `torch.compiler.is_compiling` return True.

    Code that checks it then avoids branches on tensor values, which `vmap` does not support either. For example,
    Transformers drops the mask of a batch without padding only if it is not being compiled.
    """
    return changed(torch.compiler, is_compiling=lambda: True)
