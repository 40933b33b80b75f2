"""Passes of one model: as a trial alone, and as rows of stacked trials."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dropsearch.dropout.row_control import RowBits, RowDropoutControl, mask_shapes, row_rates
from dropsearch.dropout.trial_control import TrialControl
from dropsearch.training.vectorized.vmap_modes import VmapRNN

Rates = Mapping[str, float]
Run = Callable[[], Any]


def alone(model: nn.Module, rates: Rates, run: Run, *, seed: int = 1, step: int = 0, off: bool = False) -> Any:
    """Return what a pass returns under the control of one trial."""
    control = TrialControl(model, rates, seed, off=off)
    with control.watching(), control.training_step(step):
        return run()


def stacked(model: nn.Module, rates: Sequence[Rates], seeds: Sequence[int], steps: Sequence[int], run: Run) -> Any:
    """Return what the same pass returns in each row, `[rows, ...]`."""
    shapes = mask_shapes(model, rates[0], run)
    bits = dict(RowBits(shapes, len(rates), torch.device("cpu")).draw(seeds, steps))
    control = RowDropoutControl(model)

    def row(rates: Any, bits: Any) -> Any:
        control.load(rates, bits)
        with VmapRNN(), control.step():
            return run()

    with control.watching():
        return torch.func.vmap(row)(row_rates(rates, torch.float64, torch.device("cpu")), bits)


def share(x: Tensor) -> float:
    """Return the share of zeros."""
    return float((x == 0).double().mean())
