"""Optimisers and learning rate schedules by name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import nn
from torch.optim.optimizer import Optimizer

OptimizerName = Literal["adamw", "adam", "sgd"]
OPTIMIZERS: tuple[OptimizerName, ...] = get_args(OptimizerName)
Schedule = Literal["none", "cosine", "step", "warmup_cosine"]
SCHEDULES: tuple[Schedule, ...] = get_args(Schedule)


def build_optimizer(
    module: nn.Module,
    name: OptimizerName,
    *,
    lr: float,
    weight_decay: float = 0.0,
    momentum: float = 0.9,
    nesterov: bool = False,
    betas: Sequence[float] = (0.9, 0.999),
) -> Optimizer:
    """Build an optimiser of the module's parameters.

    Weight decay reaches what has two or more dimensions (weights), not biases and norms, so there are two
    parameter groups, the decayed first; a group without parameters is left out. `momentum` and `nesterov` are
    read by sgd, `betas` by adam (which adds the decay to the gradient) and adamw (which does not).
    """
    groups = parameter_groups(module, weight_decay)
    if name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov)
    kind = torch.optim.AdamW if name == "adamw" else torch.optim.Adam
    return kind(groups, lr=lr, betas=(betas[0], betas[1]))


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return the parameters that take weight decay, and those that do not."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def schedule_factor(schedule: Schedule, epoch: int, epochs: int) -> float:
    """Return what the learning rate is multiplied by in an epoch (counted from 0) of a training of `epochs`.

    * none: 1.
    * cosine: half a cosine from 1 towards 0 (Loshchilov & Hutter 2017, without restarts).
    * step: a tenth from the half on, a hundredth from three quarters on.
    * warmup_cosine: rises linearly over the first tenth (at least one epoch), then falls as cosine.
    """
    if schedule == "cosine":
        return _cosine(epoch, epochs)
    if schedule == "step":
        return 0.1 ** ((2 * epoch >= epochs) + (4 * epoch >= 3 * epochs))
    if schedule == "warmup_cosine":
        warmup = max(1, epochs // 10)
        return (epoch + 1) / (warmup + 1) if epoch < warmup else _cosine(epoch - warmup, epochs - warmup)
    return 1.0


def _cosine(epoch: int, epochs: int) -> float:
    # LambdaLR asks for the epoch behind the last one as well, where the cosine has reached 0.
    return 0.5 * (1 + math.cos(math.pi * min(epoch / max(epochs, 1), 1.0)))
