"""The best score that a search comes to, against the number of trials that it may spend."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from dropsearch.core.records import Budget, Interval, TrialResult
from dropsearch.stats.intervals import FEWEST_FOR_BOOTSTRAP, LEVEL, bootstrap_mean, mean_interval

FEWEST = 5
"""Complete trials below which nothing is said."""
DRAWS = 1000
"""Of the distribution function: each 2.5 % tail of the band then rests on 25 of them."""
POINTS = 60
"""At most so many budgets have a point of the curve."""

Array = NDArray[np.float64]


def random_search(trials: Sequence[TrialResult], floor: float = 0.0, seed: int = 0) -> Budget | None:
    """Expected best score of k trials of a random search, for each k up to the trials that there are.

    The mean over all subsets of k trials, which has no bias (the U-statistic; Tang et al. 2020 on why not the
    bootstrap's mean), with a band of 95 % for each k: see `_bands`. A trial that was pruned or failed has spent its
    budget and brought nothing: it counts as the worst complete one. Its own last loss would not do, for it is that of
    fewer epochs. None where fewer than five trials are complete.

    Args:
        trials: Trials whose configurations were drawn independently, which a sampler that learns does not.
        floor: What no score can be below, as 0 for a cross-entropy; -inf where there is no such number.
        seed: Of the band's draws.
    """
    scores = _scores([trials])
    if scores is None:
        return None
    ordered = np.sort(scores[0])
    budgets = _budgets(ordered.size)
    means = [ordered @ _chances(ordered.size, k) for k in budgets]
    expected = np.clip(means, ordered[0], ordered[-1])  # which rounding may leave
    low, high = _bands(ordered, budgets, floor, seed)
    return _budget(budgets, expected, np.minimum(low, expected), np.maximum(high, expected), "trials")


def repeated_searches(searches: Sequence[Sequence[TrialResult]], floor: float = 0.0) -> Budget | None:
    """Mean best-so-far of searches that were done anew with other seeds, whatever proposed their trials.

    The band is the 95 % interval of that mean at each budget: Student's for fewer than six searches, the studentised
    bootstrap's for more. Trials that were pruned or failed count as in `random_search`. None where there are not two
    searches, or fewer than five complete trials in all.

    Args:
        searches: The trials of each search in the order in which they were asked; the shortest decides the length.
        floor: What no score can be below.
    """
    scores = _scores(searches) if len(searches) > 1 else None
    if scores is None:
        return None
    length = min(len(search) for search in scores)
    budgets = _budgets(length)
    so_far = np.minimum.accumulate([search[:length] for search in scores], axis=1)[:, [k - 1 for k in budgets]]
    intervals = [_interval(column) for column in so_far.T]
    low = np.maximum([interval.low for interval in intervals], floor)
    return _budget(budgets, so_far.mean(axis=0), low, np.array([i.high for i in intervals]), "repeats")


def _scores(searches: Sequence[Sequence[TrialResult]]) -> list[Array] | None:
    """Objective of each trial, that of the worst complete one where there is none; None with too few of them."""
    found = [np.array([_score(trial) for trial in search]) for search in searches]
    complete = np.concatenate([scores[np.isfinite(scores)] for scores in found])
    if complete.size < FEWEST or not all(scores.size for scores in found):
        return None
    return [np.where(np.isfinite(scores), scores, complete.max()) for scores in found]


def _score(trial: TrialResult) -> float:
    return trial.best.objective if trial.state == "COMPLETE" and trial.best else math.inf


def _budgets(most: int) -> list[int]:
    """All budgets up to `most`, or a selection of them that thins out."""
    return sorted({round(k) for k in np.geomspace(1, most, POINTS)}) if most > POINTS else list(range(1, most + 1))


def _chances(size: int, k: int) -> Array:
    """Probability that each of `size` ordered values is the least of k that are drawn without replacement."""
    above = np.arange(size - 1, -1, -1.0)
    possible = above >= k - 1
    chances = np.zeros(size)
    chances[possible] = np.exp(_log_choose(above[possible], k - 1) - _log_choose(np.array(float(size)), k))
    return chances


def _log_choose(n: Array, k: int) -> Array:
    return gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)


def _bands(ordered: Array, budgets: Sequence[int], floor: float, seed: int) -> tuple[Array, Array]:
    """95 % limits of the expected best of each budget, whatever the distribution that the scores come from.

    The probability between two neighbouring order statistics of n values has a known distribution: all of them are
    uniform on the simplex (Wilks 1962, section 8.7; the Bayesian bootstrap of Rubin 1981 and Banks 1988 rests on
    it). So distribution functions are drawn, and each gives an expected best. What lies *between* two values nobody
    knows, nor how far below the best one it goes on. The upper limit takes all of it to be as large as it can be,
    the lower one spreads it evenly, below the best value down to `floor`.
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
    """Expected best [draws] where probability is spread evenly between neighbours; `powers` are those of k + 1."""
    widths = np.concatenate([[ordered[0] - floor], steps])
    return floor + ((powers[:, :-1] - powers[:, 1:]) / ((k + 1) * (left[:, :-1] - left[:, 1:]))) @ widths


def _survival(size: int, seed: int) -> Array:
    """Drawn probabilities of a score above each of `size` ordered values [draws, 1 + size], first of any score."""
    gaps = np.random.default_rng([seed, size]).dirichlet(np.ones(size + 1), DRAWS)
    return 1 - np.concatenate([np.zeros((DRAWS, 1)), np.cumsum(gaps[:, :-1], axis=1)], axis=1)


def _interval(values: Array) -> Interval:
    if values.size < FEWEST_FOR_BOOTSTRAP:
        return mean_interval(values.tolist())
    return bootstrap_mean(values.tolist())


def _budget(
    budgets: Sequence[int], expected: Array, low: Array, high: Array, source: Literal["trials", "repeats"]
) -> Budget:
    return Budget(tuple(budgets), tuple(expected.tolist()), tuple(low.tolist()), tuple(high.tolist()), source)
