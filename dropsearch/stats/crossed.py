"""Difference between two models over two crossed random factors: training seeds and test examples."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from dropsearch.core.records import Interval
from dropsearch.stats.intervals import LEVEL


def crossed_difference(differences: NDArray[np.float64]) -> tuple[Interval, float]:
    """Estimate a mean difference, its 95 % interval and its p-value over new seeds and a new test set.

    The variance is the closed form of the crossed bootstrap, which resamples seeds and examples, without its noise and
    its bias for few seeds (Owen 2007, "The pigeonhole bootstrap"): the variance of the seeds' means plus that of the
    examples' means minus their common part. Quantiles are Student's with Satterthwaite's (1946) degrees of freedom. The
    interval is clipped to the range of the differences, extended to zero.

    Args:
        differences: One model minus another for each seed and test example, `[seeds, examples]`.

    Returns:
        The interval, and the two-sided p of no difference: NaN bounds and p = 1 with fewer than two seeds or examples.
    """
    seeds, examples = differences.shape
    mean = float(differences.mean()) if differences.size else math.nan
    if seeds < 2 or examples < 2 or not np.isfinite(differences).all():
        return Interval(mean, math.nan, math.nan), 1.0
    by_seed, by_example = differences.mean(axis=1), differences.mean(axis=0)
    of_seeds, of_examples = float(by_seed.var(ddof=1)) / seeds, float(by_example.var(ddof=1)) / examples
    rest = differences - by_seed[:, None] - by_example[None, :] + mean
    of_both = float((rest**2).sum()) / ((seeds - 1) * (examples - 1)) / (seeds * examples)
    variance = max(of_seeds + of_examples - of_both, of_seeds, of_examples)
    if variance == 0:
        return Interval(mean, mean, mean), 1.0 if mean == 0 else 0.0
    freedom = (of_seeds + of_examples) ** 2 / (of_seeds**2 / (seeds - 1) + of_examples**2 / (examples - 1))
    error = math.sqrt(variance)
    half = float(stdtrit(freedom, (1 + LEVEL) / 2)) * error
    low = max(mean - half, min(float(differences.min()), 0.0))
    high = min(mean + half, max(float(differences.max()), 0.0))
    return Interval(mean, low, high), 2 * float(stdtr(freedom, -abs(mean) / error))
