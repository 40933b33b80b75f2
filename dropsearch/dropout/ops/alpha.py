"""Alpha dropout, which preserves mean and variance after a SELU: `nn.AlphaDropout`, `nn.FeatureAlphaDropout`.

Klambauer et al. 2017.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dropsearch.dropout.ops.call import CallOp
from dropsearch.dropout.ops.element import functions, reader
from dropsearch.dropout.rates import Rate

SELU_SATURATION = -1.7580993408473766
"""Limit of SELU at minus infinity, the value of dropped activations."""


def alpha_drop(x: Tensor, rate: Rate, bits: Tensor) -> Tensor:
    """Set dropped activations to SELU's negative limit and rescale to preserve mean and variance."""
    keep = rate.keep(bits, x.dtype)
    p = rate.value.to(x.dtype) if isinstance(rate.value, Tensor) else rate.value
    a = ((1 - p) * (1 + p * SELU_SATURATION**2)) ** -0.5 if isinstance(p, Tensor) or p < 1 else 0.0
    return a * (x * keep + SELU_SATURATION * (1 - keep)) - a * SELU_SATURATION * p


OPS: Mapping[Any, CallOp] = {
    **dict.fromkeys(functions("alpha_dropout"), CallOp("alpha dropout", reader(alpha_drop, channels=False))),
    torch.alpha_dropout_: CallOp("alpha dropout", reader(alpha_drop, channels=False, inplace=True)),
    **dict.fromkeys(
        functions("feature_alpha_dropout"), CallOp("feature alpha dropout", reader(alpha_drop, channels=True))
    ),
    torch.feature_alpha_dropout_: CallOp("feature alpha dropout", reader(alpha_drop, channels=True, inplace=True)),
}
