"""Scores of predicted probabilities."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar
from torch import Tensor

BINS = 15
"""Number of bins of the expected calibration error (Guo et al. 2017)."""


@dataclass(frozen=True)
class Scores:
    """Scores of predicted probabilities; all NaN if a probability is NaN."""

    nll: float
    """Mean negative log-likelihood of the targets, in nats."""
    brier: float
    """Mean squared distance of the probabilities to the target's one-hot vector (Brier 1950), in [0, 2]."""
    accuracy: float
    """In [0, 1]."""
    ece: float
    """Expected calibration error, in [0, 1] (Guo et al. 2017)."""

    @classmethod
    def of(cls, log_probabilities: Tensor, targets: Tensor) -> Scores:
        """Score log-probabilities `[examples, classes]` for the target classes `[examples]`."""
        if not len(targets) or log_probabilities.isnan().any():
            return cls(math.nan, math.nan, math.nan, math.nan)
        wide = log_probabilities.double()
        return cls(
            nll=float(F.nll_loss(wide, targets)),
            brier=brier_score(wide.exp(), targets),
            accuracy=accuracy(wide, targets),
            ece=calibration_error(wide.exp(), targets),
        )


def accuracy(scores: Tensor, targets: Tensor) -> float:
    """Return the share of examples whose highest score `[examples, classes]` is the target's; NaN if a score is."""
    if not len(targets) or scores.isnan().any():
        return math.nan
    return float((scores.argmax(-1) == targets).double().mean())


def brier_score(probabilities: Tensor, targets: Tensor) -> float:
    """Return the mean over examples of the squared distance to the one-hot target (Brier 1950)."""
    truth = F.one_hot(targets, probabilities.shape[-1])
    return float((probabilities - truth).square().sum(-1).mean())


def calibration_error(probabilities: Tensor, targets: Tensor, bins: int = BINS) -> float:
    """Return the expected calibration error over bins of equal width of the confidence (Guo et al. 2017, eq. 3).

    The mean over examples of |accuracy - confidence| of the example's bin; a confidence on the border of two bins
    belongs to the lower one.
    """
    confidence, predicted = probabilities.max(-1)
    bin_of = (confidence * bins).ceil().long().clamp(1, bins) - 1
    surplus = confidence - (predicted == targets).to(confidence.dtype)
    by_bin = torch.zeros(bins, dtype=confidence.dtype, device=confidence.device).index_add_(0, bin_of, surplus)
    return float(by_bin.abs().sum() / len(targets))


RANGE = (0.05, 20.0)
"""Range of temperatures. A network without validation errors gets the lowest (its optimum is 0)."""


def fitted_temperature(logits: Tensor, targets: Tensor) -> float:
    """Return the temperature in `RANGE` whose scaled logits have the lowest negative log-likelihood (Guo et al. 2017).

    The optimum is unique, since the loss is convex in the inverse temperature. NaN if a logit is not finite.

    Args:
        logits: `[examples, classes]` of examples that were not used for training.
        targets: Classes `[examples]`.
    """
    if not len(targets) or not logits.isfinite().all():
        return math.nan
    wide = logits.double()

    def loss(log_temperature: float) -> float:
        return float(F.cross_entropy(wide / math.exp(log_temperature), targets))

    bounds = (math.log(RANGE[0]), math.log(RANGE[1]))
    return math.exp(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-4}).x)
