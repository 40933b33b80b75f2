"""Optimizers and learning rate schedules by name."""

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
    """Build an optimizer for the parameters of a module.

    Weight decay applies to parameters with two or more dimensions (weights), not to biases and norms. So there are two
    parameter groups, the decayed one first; an empty group is omitted. sgd uses `momentum` and `nesterov`; adam
    (coupled weight decay) and adamw (decoupled weight decay) use `betas`.
    """
    groups = parameter_groups(module, weight_decay)
    if name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov)
    kind = torch.optim.AdamW if name == "adamw" else torch.optim.Adam
    return kind(groups, lr=lr, betas=(betas[0], betas[1]))


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return one parameter group with weight decay and one without."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def schedule_factor(schedule: Schedule, epoch: int, epochs: int) -> float:
    """Return the factor of the learning rate in an epoch (counted from 0) of a training of `epochs` epochs.

    * none: 1.
    * cosine: half a cosine from 1 to 0 (Loshchilov & Hutter 2017, without restarts).
    * step: 0.1 from half of the epochs on, 0.01 from three quarters on.
    * warmup_cosine: linear increase over the first tenth (at least one epoch), then cosine.
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
    # LambdaLR also requests the epoch after the last one, where the cosine is 0.
    return 0.5 * (1 + math.cos(math.pi * min(epoch / max(epochs, 1), 1.0)))
