"""Expected best score of a search as a function of its number of trials."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from dropsearch.core.records import Budget, TrialResult
from dropsearch.stats.intervals import LEVEL, bootstrap_mean

FEWEST = 5
"""Minimum number of complete trials."""
DRAWS = 1000
"""Number of draws of the distribution function, so that each 2.5 % tail of the band has 25 of them."""
POINTS = 60
"""Maximum number of points of the curve."""

Array = NDArray[np.float64]


def random_search(trials: Sequence[TrialResult], floor: float = 0.0, seed: int = 0) -> Budget | None:
    """Return the expected best score of k trials of a random search, for each k up to the number of trials.

    The estimate is the mean over all subsets of k trials, which is unbiased (a U-statistic; Tang et al. 2020 explain
    the bias of the bootstrap), with a 95 % band for each k (see `_bands`). A pruned or failed trial used its budget
    without a result, so it counts as the worst complete one; its last loss belongs to fewer epochs. Returns None with
    fewer than five complete trials.

    Args:
        trials: Trials whose configurations were drawn independently, so not by an adaptive sampler.
        floor: Lower bound of the score, such as 0 for a cross-entropy; -inf if there is none.
    """
    scores = _scores([trials])
    if scores is None:
        return None
    ordered = np.sort(scores[0])
    budgets = _budgets(ordered.size)
    means = [ordered @ _chances(ordered.size, k) for k in budgets]
    expected = np.clip(means, ordered[0], ordered[-1])  # corrects rounding
    low, high = _bands(ordered, budgets, floor, seed)
    return _budget(budgets, expected, np.minimum(low, expected), np.maximum(high, expected), "trials")


def repeated_searches(searches: Sequence[Sequence[TrialResult]], floor: float = 0.0) -> Budget | None:
    """Return the mean best-so-far score of searches repeated with other seeds, for any sampler.

    The band is the 95 % interval of the mean at each budget: Student's for fewer than six searches, the studentized
    bootstrap for more. Pruned and failed trials count as in `random_search`. Returns None with fewer than two searches
    or fewer than five complete trials in total.

    Args:
        searches: The trials of each search in the order of `ask`; the shortest search limits the length.
        floor: Lower bound of the score.
    """
    scores = _scores(searches) if len(searches) > 1 else None
    if scores is None:
        return None
    length = min(len(search) for search in scores)
    budgets = _budgets(length)
    so_far = np.minimum.accumulate([search[:length] for search in scores], axis=1)[:, [k - 1 for k in budgets]]
    intervals = [bootstrap_mean(column.tolist()) for column in so_far.T]
    low = np.maximum([interval.low for interval in intervals], floor)
    return _budget(budgets, so_far.mean(axis=0), low, np.array([i.high for i in intervals]), "repeats")


def _scores(searches: Sequence[Sequence[TrialResult]]) -> list[Array] | None:
    """Return each trial's objective, or the worst complete one if it has none; None with too few trials."""
    found = [
        np.array([trial.objective if trial.state == "COMPLETE" else math.inf for trial in search])
        for search in searches
    ]
    complete = np.concatenate([scores[np.isfinite(scores)] for scores in found])
    if complete.size < FEWEST or not all(scores.size for scores in found):
        return None
    return [np.where(np.isfinite(scores), scores, complete.max()) for scores in found]


def _budgets(most: int) -> list[int]:
    """Return all budgets up to `most`, or a selection with growing distances."""
    return sorted({round(k) for k in np.geomspace(1, most, POINTS)}) if most > POINTS else list(range(1, most + 1))


def _chances(size: int, k: int) -> Array:
    """Return the probability that each of `size` ordered values is the minimum of k drawn without replacement."""
    above = np.arange(size - 1, -1, -1.0)
    possible = above >= k - 1
    chances = np.zeros(size)
    chances[possible] = np.exp(_log_choose(above[possible], k - 1) - _log_choose(np.array(float(size)), k))
    return chances


def _log_choose(n: Array, k: int) -> Array:
    return gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)


def _bands(ordered: Array, budgets: Sequence[int], floor: float, seed: int) -> tuple[Array, Array]:
    """Return distribution-free 95 % limits of the expected best score of each budget.

    The probabilities between neighboring order statistics of n values are uniform on the simplex (Wilks 1962, section
    8.7; the basis of the Bayesian bootstrap, Rubin 1981 and Banks 1988). Distribution functions are drawn accordingly,
    and each gives an expected best score. The distribution between two values and below the best value is unknown: the
    upper limit places it at the larger value; the lower limit spreads it evenly, below the best value down to `floor`.
    """
    left = _survival(ordered.size, seed)
    steps = np.diff(ordered)
    lows, highs = [], []
    for k in budgets:
        powers = left**k
        highs.append(ordered[0] + powers[:, 1:-1] @ steps)
        lows.append(_spread(left, powers * left, k, ordered, steps, floor) if math.isfinite(floor) else [])
    tail = (1 - LEVEL) / 2
    low = np.quantile(lows, tail, axis=1) if math.isfinite(floor) else np.full(len(budgets), -math.inf)
    return low, np.quantile(highs, 1 - tail, axis=1)


def _spread(left: Array, powers: Array, k: int, ordered: Array, steps: Array, floor: float) -> Array:
    """Return the expected best `[draws]` if probability is spread evenly between neighbors, from powers k + 1."""
    widths = np.concatenate([[ordered[0] - floor], steps])
    return floor + ((powers[:, :-1] - powers[:, 1:]) / ((k + 1) * (left[:, :-1] - left[:, 1:]))) @ widths


def _survival(size: int, seed: int) -> Array:
    """Return drawn probabilities of a score above each of `size` ordered values, `[draws, 1 + size]`, first 1."""
    gaps = np.random.default_rng([seed, size]).dirichlet(np.ones(size + 1), DRAWS)
    return 1 - np.concatenate([np.zeros((DRAWS, 1)), np.cumsum(gaps[:, :-1], axis=1)], axis=1)


def _budget(
    budgets: Sequence[int], expected: Array, low: Array, high: Array, source: Literal["trials", "repeats"]
) -> Budget:
    return Budget(tuple(budgets), tuple(expected.tolist()), tuple(low.tolist()), tuple(high.tolist()), source)
