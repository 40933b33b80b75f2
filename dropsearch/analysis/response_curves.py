"""Score as a function of the dropout rate of one site, estimated from the trials of a search."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.polynomial.legendre import legvander
from numpy.typing import NDArray
from scipy.special import stdtrit

from dropsearch.core.records import Response, TrialResult
from dropsearch.stats.intervals import LEVEL

FEWEST = 10
"""Minimum number of complete trials."""
POINTS = 19
"""Number of points of a curve: steps of 0.05 over a range up to 0.9."""
DEGREE = 5
SHRINKAGE = 0.5
"""Factor of the prior standard deviation from one degree to the next, which makes curves smooth."""
STRENGTHS = (0.1, 0.4, 1.5, 6.0)
"""Prior strengths of a curve in units of the noise; the data weigh them."""
FENCE = 1.5
"""Interquartile ranges above the upper quartile beyond which scores are clipped (Tukey 1977)."""

Array = NDArray[np.float64]


def responses(
    trials: Sequence[TrialResult],
    sites: Sequence[str],
    importance: Mapping[str, float],
    found: Mapping[str, float],
    typical: Mapping[str, float],
    low: float,
    high: float,
) -> tuple[Response, ...]:
    """Return the expected score at each rate of each site, averaged over other searched parameters, with 95 % bands.

    Learning rate and weight decay are modeled by smooth curves of their logarithms. Rates of other sites and other
    searched parameters are part of the noise, since the trials are too few to separate them. Only complete trials
    count. A score above the upper fence (a diverged trial) is set to the fence. Empty with fewer than ten complete
    trials.

    Args:
        importance: Importance by site; missing sites get nan, also in the next two arguments.
        low: Lowest searched rate; zero is included if trials had it.
    """
    complete = [trial for trial in trials if trial.state == "COMPLETE" and trial.best]
    if len(complete) < FEWEST:
        return ()
    scores = _fenced(np.array([trial.objective for trial in complete]))
    nuisances = _nuisances(complete)
    curves = [_curve(complete, site, nuisances, scores, low, high) for site in sites]
    return tuple(
        Response(site, *curve, *(known.get(site, math.nan) for known in (importance, found, typical)))
        for site, curve in zip(sites, curves, strict=True)
        if curve
    )


def _fenced(scores: Array) -> Array:
    lower, upper = np.quantile(scores, [0.25, 0.75])
    return np.minimum(scores, upper + FENCE * (upper - lower))


def _nuisances(trials: Sequence[TrialResult]) -> list[Array]:
    """Return the logarithms of learning rate and weight decay, if searched, scaled to [-1, 1]."""
    columns = [np.array([trial.spec.lr for trial in trials]), np.array([trial.spec.weight_decay for trial in trials])]
    searched = [np.log(column) for column in columns if np.isfinite(column).all() and column.min() > 0]
    return [_scaled(column, column.min(), column.max()) for column in searched if np.ptp(column) > 0]


def _scaled(values: Array, low: float, high: float) -> Array:
    return 2 * (values - low) / (high - low) - 1


Curve = tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...], tuple[float, ...]]


def _curve(
    trials: Sequence[TrialResult], site: str, nuisances: Sequence[Array], scores: Array, low: float, high: float
) -> Curve | None:
    """Return rates, expected scores and bands; None if the site's rate was constant."""
    rates = np.array([trial.spec.rates.get(site, math.nan) for trial in trials])
    if not np.isfinite(rates).all() or np.ptp(rates) == 0:
        return None
    bounds = (min(low, rates.min()), max(high, rates.max()))
    smooth = SmoothEffect.of(_scaled(rates, *bounds), nuisances, scores)
    grid = np.linspace(*bounds, POINTS)
    expected, half = smooth.at(_scaled(grid, *bounds))
    rates, middle, lower, upper = (tuple(line.tolist()) for line in (grid, expected, expected - half, expected + half))
    return rates, middle, lower, upper


@dataclass(frozen=True)
class SmoothEffect:
    """Posterior of a smooth curve in one variable, given smooth curves in others, for each tried prior.

    Bayesian regression on Legendre polynomials of each variable, with Jeffreys' prior for the noise and a flat prior
    for the level (MacKay 1992; like additive Gaussian processes, Duvenaud et al. 2011, with a kernel of finite rank).
    The strength of each curve relative to the noise is averaged over, weighted by its marginal likelihood.
    """

    weights: Array
    """Posterior probability of each prior [priors]."""
    coefficients: Array
    """[priors, DEGREE]"""
    covariance: Array
    """[priors, DEGREE, DEGREE]"""
    level: float
    level_variance: Array
    """Variance of the level `[priors]`, including other variables' effects averaged over the trials."""
    means: Array
    """Means of the polynomials over the trials `[DEGREE]`."""
    trials: int

    @classmethod
    def of(cls, variable: Array, others: Sequence[Array], scores: Array) -> SmoothEffect:
        """Fit `scores` [n] to a variable and others, each [n] within [-1, 1]."""
        terms = [_polynomials(column) for column in (variable, *others)]
        design, deviations = np.concatenate(terms, axis=1), scores - scores.mean()
        centred, degrees = design - design.mean(axis=0), scores.size - 1
        gram, moment, total = centred.T @ centred, centred.T @ deviations, float(deviations @ deviations)
        scale = np.repeat(np.array(list(itertools.product(STRENGTHS, repeat=len(terms)))), DEGREE, axis=1)
        precision = scale[:, :, None] * gram * scale[:, None, :] + np.eye(gram.shape[0])
        inverse = np.linalg.inv(precision)
        coefficients = scale * np.einsum("pij,pj->pi", inverse, scale * moment)
        noise = np.maximum(total - coefficients @ moment, 1e-12 * total + 1e-300)
        own = slice(0, DEGREE)
        explained = 2 * coefficients[:, own] @ moment[own] - np.einsum(
            "pi,ij,pj->p", coefficients[:, own], gram[own, own], coefficients[:, own]
        )
        return cls(
            _shares(-np.linalg.slogdet(precision)[1] / 2 - degrees / 2 * np.log(noise)),
            coefficients[:, own],
            scale[:, own, None] * inverse[:, own, own] * scale[:, None, own] * (noise / degrees)[:, None, None],
            float(scores.mean()),
            np.maximum(total - explained, 0) / degrees / scores.size,
            design.mean(axis=0)[own],
            scores.size,
        )

    def at(self, points: Array) -> tuple[Array, Array]:
        """Return the expected score at points `[m]` in [-1, 1], and half the width of its 95 % interval `[m]`."""
        terms = _polynomials(points) - self.means
        means = self.level + self.coefficients @ terms.T
        variances = np.einsum("mi,pij,mj->pm", terms, self.covariance, terms) + self.level_variance[:, None]
        expected = self.weights @ means
        variance = self.weights @ (variances + (means - expected) ** 2)
        return expected, float(stdtrit(self.trials - 1, (1 + LEVEL) / 2)) * np.sqrt(variance)


def _polynomials(points: Array) -> Array:
    """Return Legendre polynomials of degrees 1 to DEGREE `[points, DEGREE]`, with decreasing prior variance."""
    degrees = np.arange(1, DEGREE + 1)
    return legvander(points, DEGREE)[:, 1:] * np.sqrt(2 * degrees + 1) * SHRINKAGE ** (degrees - 1)


def _shares(log_likelihoods: Array) -> Array:
    shares = np.exp(log_likelihoods - log_likelihoods.max())
    return shares / shares.sum()
