"""Temperature scaling: the plainest way to honest probabilities, beside which every other one is held."""

from __future__ import annotations

import math

import torch.nn.functional as F
from scipy.optimize import minimize_scalar
from torch import Tensor

RANGE = (0.05, 20.0)
"""Temperatures looked at. A network that makes no error on validation wants one of 0 and is given the lowest."""


def fitted_temperature(logits: Tensor, targets: Tensor) -> float:
    """Return the temperature in `RANGE` whose scaled logits have the least negative log-likelihood (Guo et al. 2017).

    The likelihood has one optimum, for it is convex in the inverse of the temperature. NaN where a logit is not finite.

    Args:
        logits: [examples, classes], of examples that the network was not trained on.
        targets: Classes [examples].
    """
    if not len(targets) or not logits.isfinite().all():
        return math.nan
    wide = logits.double()

    def loss(log_temperature: float) -> float:
        return float(F.cross_entropy(wide / math.exp(log_temperature), targets))

    bounds = (math.log(RANGE[0]), math.log(RANGE[1]))
    return math.exp(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-4}).x)
