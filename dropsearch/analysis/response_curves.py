"""How the score depends on the dropout rate of one site, as the trials of a search show it."""

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
"""Complete trials below which no curve is drawn."""
POINTS = 19
"""Of a curve: steps of 0.05 over a range up to 0.9."""
DEGREE = 5
SHRINKAGE = 0.5
"""A priori a term of one degree more has half the standard deviation: curves are smooth."""
STRENGTHS = (0.1, 0.4, 1.5, 6.0)
"""What a curve's deviations may be in units of the noise; the data weigh them."""
FENCE = 1.5
"""Interquartile ranges beyond the upper quartile from which on a score counts as no worse (Tukey 1977)."""

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
    """Expected score at each rate of each site, averaged over what else was searched, with a 95 % band for each rate.

    Learning rate and weight decay are taken out by smooth curves of their logarithms, the other sites' rates and
    what else was searched are left in the noise: so few trials could not tell their curves apart. Only complete
    trials count. A score beyond the upper fence (a trial that diverged) counts as the fence. Empty where fewer than
    ten trials are complete.

    Args:
        trials: The trials of one arm's search.
        sites: The sites whose rates were searched.
        importance: By site; nan for those that it lacks, as for the next two.
        found: The rate of the arm's winner by site.
        typical: The typical rate by site.
        low: The least rate of the range that was searched; zero is drawn too where trials had it.
        high: The greatest.
    """
    complete = [trial for trial in trials if trial.state == "COMPLETE" and trial.best]
    if len(complete) < FEWEST:
        return ()
    scores = _fenced(np.array([trial.best.objective for trial in complete if trial.best]))
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
    """Logarithms of learning rate and weight decay over [-1, 1], where they were searched."""
    columns = [np.array([trial.spec.lr for trial in trials]), np.array([trial.spec.weight_decay for trial in trials])]
    searched = [np.log(column) for column in columns if np.isfinite(column).all() and column.min() > 0]
    return [_scaled(column, column.min(), column.max()) for column in searched if np.ptp(column) > 0]


def _scaled(values: Array, low: float, high: float) -> Array:
    return 2 * (values - low) / (high - low) - 1


Curve = tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...], tuple[float, ...]]


def _curve(
    trials: Sequence[TrialResult], site: str, nuisances: Sequence[Array], scores: Array, low: float, high: float
) -> Curve | None:
    """Rates, expected score and band; None where the site's rate was always the same."""
    rates = np.array([trial.spec.rates.get(site, math.nan) for trial in trials])
    if not np.isfinite(rates).all() or np.ptp(rates) == 0:
        return None
    bounds = (min(low, rates.min()), max(high, rates.max()))
    smooth = SmoothEffect.of(_scaled(rates, *bounds), nuisances, scores)
    grid = np.linspace(*bounds, POINTS)
    expected, half = smooth.at(_scaled(grid, *bounds))
    return tuple(grid.tolist()), *_lines(expected, half)


def _lines(expected: Array, half: Array) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
    return tuple(expected.tolist()), tuple((expected - half).tolist()), tuple((expected + half).tolist())


@dataclass(frozen=True)
class SmoothEffect:
    """Posterior of a smooth curve in one variable, beside smooth curves in others, for each prior that was tried.

    Bayesian regression on Legendre polynomials of each variable, with Jeffreys' prior for the noise and a flat one for
    the level (MacKay 1992; as additive Gaussian processes, Duvenaud et al. 2011, with a kernel of finite rank). How
    strong each curve is, relative to the noise, is not chosen but averaged over, by its marginal likelihood.
    """

    weights: Array
    """Posterior probability of each prior [priors]."""
    coefficients: Array
    """[priors, DEGREE]"""
    covariance: Array
    """[priors, DEGREE, DEGREE]"""
    level: float
    level_variance: Array
    """[priors]: all that is not the curve, others' effects too, averaged over the trials."""
    means: Array
    """Of the polynomials over the trials [DEGREE]."""
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
        explained = 2 * coefficients[:, own] @ moment[own] - _quadratic(coefficients[:, own], gram[own, own])
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
        """Return the expected score at points [m] within [-1, 1], and half the length of its 95 % interval [m]."""
        terms = _polynomials(points) - self.means
        means = self.level + self.coefficients @ terms.T
        variances = np.einsum("mi,pij,mj->pm", terms, self.covariance, terms) + self.level_variance[:, None]
        expected = self.weights @ means
        variance = self.weights @ (variances + (means - expected) ** 2)
        return expected, float(stdtrit(self.trials - 1, (1 + LEVEL) / 2)) * np.sqrt(variance)


def _polynomials(points: Array) -> Array:
    """Legendre polynomials of degrees 1 to DEGREE [points, DEGREE], of less and less variance."""
    degrees = np.arange(1, DEGREE + 1)
    return legvander(points, DEGREE)[:, 1:] * np.sqrt(2 * degrees + 1) * SHRINKAGE ** (degrees - 1)


def _quadratic(rows: Array, matrix: Array) -> Array:
    return np.einsum("pi,ij,pj->p", rows, matrix, rows)


def _shares(log_likelihoods: Array) -> Array:
    shares = np.exp(log_likelihoods - log_likelihoods.max())
    return shares / shares.sum()
