"""Activations, norms, and the order of the parts of a layer."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, get_args

import torch
from torch import Tensor, nn

from dropsearch.core.constraints import Constraint

NormName = Literal["none", "batch", "layer"]
Norm = Annotated[NormName, Constraint(one_of=get_args(NormName))]
ActivationName = Literal["relu", "gelu", "tanh", "leaky_relu", "silu"]
Activation = Annotated[ActivationName, Constraint(one_of=get_args(ActivationName))]
Width = Annotated[int, Constraint("int", at_least=1, at_most=16_384)]
Widths = Annotated[Sequence[int], Constraint("int", at_least=1, at_most=16_384, most_items=64)]
Depth = Annotated[int, Constraint("int", at_least=1, at_most=64)]
"""Layers, heads, or steps of pooling."""
Flag = Annotated[bool, Constraint("bool")]

ACTIVATIONS: Mapping[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "leaky_relu": nn.LeakyReLU,
    "silu": nn.SiLU,
}


class StepBatchNorm(nn.BatchNorm1d):
    """BatchNorm over the features of `[batch, steps, features]` whose statistics exclude padding.

    Equals ``nn.BatchNorm1d`` applied to the real steps. Shapes do not depend on the data, so it runs under ``vmap``.
    """

    def forward(self, input: Tensor, real: Tensor | None = None) -> Tensor:
        """Normalize all steps by the statistics of those where the mask `real` `[batch, steps]` is True."""
        if real is None or not self.training:
            return super().forward(input.flatten(0, 1)).view_as(input)
        weight = real.unsqueeze(-1).to(self.weight.dtype)
        count = weight.sum()
        values = input.to(self.weight.dtype)
        mean = (values * weight).sum((0, 1)) / count
        var = ((values - mean).square() * weight).sum((0, 1)) / count
        self._update_running(mean.detach(), var.detach() * count / (count - 1).clamp(min=1))
        scaled = (values - mean) * torch.rsqrt(var + self.eps) * self.weight + self.bias
        return scaled.to(input.dtype)

    def _update_running(self, mean: Tensor, var: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        # With momentum=None PyTorch uses the cumulative average over batches.
        share = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
        self.running_mean.add_((mean - self.running_mean) * share)
        self.running_var.add_((var - self.running_var) * share)


def make_norm(norm: Norm, features: int) -> nn.Module | None:
    """Return a norm for `[batch, features]`, or None for "none"."""
    if norm == "none":
        return None
    return nn.BatchNorm1d(features) if norm == "batch" else nn.LayerNorm(features)


def make_step_norm(norm: Norm, features: int) -> nn.Module:
    """Return a norm over the features of `[batch, steps, features]`. Apply it with `normalize`."""
    if norm == "none":
        return nn.Identity()
    return StepBatchNorm(features) if norm == "batch" else nn.LayerNorm(features)


def normalize(norm: nn.Module, steps: Tensor, real: Tensor | None) -> Tensor:
    """Apply a norm of `make_step_norm`. Only BatchNorm uses the mask of real steps."""
    return norm(steps, real) if isinstance(norm, StepBatchNorm) else norm(steps)


def needs_bias(norm: Norm, *, dropout_before_norm: bool) -> bool:
    """Return whether the layer before a norm needs a bias.

    A BatchNorm directly after it cancels the bias. The gradient of such a bias is rounding noise, which Adam scales to
    full steps, so that in float32 two equal trainings would diverge from each other.
    """
    return norm != "batch" or dropout_before_norm


def arrange(
    parts: Mapping[str, nn.Module],
    norm: Mapping[str, nn.Module | None],
    activation: Mapping[str, nn.Module],
    dropout: Mapping[str, nn.Module],
    *,
    dropout_before_norm: bool,
) -> OrderedDict[str, nn.Module]:
    """Return named parts in the order layer, norm, activation, dropout.

    In this order no BatchNorm directly follows a dropout, whose output variance differs between training and
    evaluation (variance shift, Li et al. 2019). With `dropout_before_norm` the order is layer, activation, dropout,
    norm.
    """
    norms = {name: module for name, module in norm.items() if module is not None}
    if dropout_before_norm:
        return OrderedDict({**parts, **activation, **dropout, **norms})
    return OrderedDict({**parts, **norms, **activation, **dropout})


def dense(
    width_in: int, width_out: int, norm: Norm, activation: Activation, *, dropout_before_norm: bool
) -> nn.Sequential:
    """Return a fully connected layer with norm, activation and dropout (see `arrange`)."""
    bias = needs_bias(norm, dropout_before_norm=dropout_before_norm)
    parts = arrange(
        {"linear": nn.Linear(width_in, width_out, bias=bias)},
        {"norm": make_norm(norm, width_out)},
        {"activation": ACTIVATIONS[activation]()},
        {"dropout": nn.Dropout()},
        dropout_before_norm=dropout_before_norm,
    )
    return nn.Sequential(parts)
