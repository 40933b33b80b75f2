"""Experiments with a known truth, and how often the statistics say it: for the tests, and at length for the proof."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dropsearch.analysis.budget import random_search, repeated_searches
from dropsearch.analysis.response_curves import responses
from dropsearch.core.records import ARMS, Budget, Comparison, EpochMetrics, TrialResult, TrialSpec
from dropsearch.stats.comparisons import contrasted, contrasts_of, planned_contrasts, shown_side
from dropsearch.stats.intervals import crossed_difference
from dropsearch.stats.paired_tests import holm, paired_difference, wilcoxon_exact

Array = NDArray[np.float64]
Random = np.random.Generator
TEST_EXAMPLES = 360
"""Of digits: accuracies come in steps of one in 360."""


# Null experiments: arms that differ in nothing but luck


def family_wise_error(experiments: int, seeds: int, arms: Sequence[str], generator: Random) -> float:
    """Share of null experiments in which any contrast comes below 0.05; arms share the seeds' luck, and tie.

    Contrasts are made without intervals, which take most of the time; a few whole ones show that p is the same.
    """
    errors = 0
    for number in range(experiments):
        luck = generator.normal(0, 0.01, seeds)
        values = {arm: _accuracies(0.95 + luck + generator.normal(0, 0.005, seeds)) for arm in arms}
        found = holm([wilcoxon_exact(values[a] - values[b]) for a, b in planned_contrasts(arms)])
        if number < 20:
            whole = {arm: dict(enumerate(each.tolist())) for arm, each in values.items()}
            assert [each.p_holm for each in contrasts_of(whole, "test_acc")] == found
        errors += min(found) < 0.05
    return errors / experiments


def two_looks(experiments: int, generator: Random, first: int = 10, then: int = 20) -> tuple[float, float, float]:
    """Share of null experiments that show a contrast of four arms if they are compared on `first` seeds.

    And on `first` and again on `then` seeds, at 5 % each, and at 2.5 % each.
    """
    shown = np.zeros(3)
    for _ in range(experiments):
        scores = generator.normal(size=(len(FOUR_ARMS), then))
        at_first, at_then = (
            min(each.p_holm for each in contrasts_of(_by_seed(scores[:, :seeds]), "test_loss"))
            for seeds in (first, then)
        )
        least = min(at_first, at_then)
        shown += [at_first < 0.05, least < 0.05, least < 0.025]
    return float(shown[0] / experiments), float(shown[1] / experiments), float(shown[2] / experiments)


def _by_seed(scores: Array) -> dict[str, dict[int, float]]:
    return {arm: dict(enumerate(row)) for arm, row in zip(FOUR_ARMS, scores.tolist(), strict=True)}


def _accuracies(values: Array) -> Array:
    return np.round(TEST_EXAMPLES * values) / TEST_EXAMPLES


# Experiments with two sources of luck: seeds, and the examples of the test set

FOUR_ARMS = ("none", "dropout", "batchnorm", "both")
LUCK = {"mostly of examples": (0.8, 0.15), "of both": (0.5, 0.4), "mostly of seeds": (0.2, 0.8)}
"""By name: the spread of what sets arms apart on an example, and on a seed; in sd of the margin of one answer."""
DIFFICULTY, NOISE, MARGIN = 1.5, 0.6, 1.8


def answers(margin: float, luck: str, difficulty: Array, seeds: int, generator: Random) -> Array:
    """Whether an arm's model of each seed is right on each example [seeds, examples], 1 or 0."""
    of_example, of_seed = LUCK[luck]
    size = difficulty.size
    margins = margin + difficulty + of_example * generator.normal(size=size)
    margins = margins + of_seed * generator.normal(size=(seeds, 1)) + NOISE * generator.normal(size=(seeds, size))
    return (margins > 0).astype(float)


def expected_accuracy(margin: float, luck: str) -> float:
    """The accuracy over all seeds and examples that there could be."""
    spread = math.sqrt(DIFFICULTY**2 + NOISE**2 + sum(each**2 for each in LUCK[luck]))
    return 0.5 * (1 + math.erf(margin / spread / math.sqrt(2)))


def crossed_family_wise_errors(luck: str, experiments: int, seeds: int, generator: Random) -> tuple[float, float]:
    """Share of null experiments in which a difference is shown: by seeds alone, and by seeds and test examples."""
    errors = np.zeros(2)
    for number in range(experiments):
        difficulty = DIFFICULTY * generator.normal(size=TEST_EXAMPLES)
        found = {arm: answers(MARGIN, luck, difficulty, seeds, generator) for arm in FOUR_ARMS}
        values = {arm: dict(enumerate(right.mean(axis=1).tolist())) for arm, right in found.items()}
        examples = {arm: dict(enumerate(right)) for arm, right in found.items()}
        pairs = planned_contrasts(FOUR_ARMS)
        by_both = contrasted(values, pairs, "test_acc", examples)  # type: ignore[arg-type]
        by_seeds = _over_seeds(by_both)
        if number < 5:
            alone = contrasted(values, pairs, "test_acc")
            assert [(each.difference, each.p_holm) for each in by_seeds] == [(e.difference, e.p_holm) for e in alone]
        errors += [any(map(shown_side, family)) for family in (by_seeds, by_both)]
    return float(errors[0] / experiments), float(errors[1] / experiments)


def _over_seeds(family: Sequence[Comparison]) -> list[Comparison]:
    """Return contrasts over seeds alone, whose intervals, which take long, contrasts over both have."""
    adjusted = holm([wilcoxon_exact(each.differences) for each in family])
    return [
        replace(each, difference=each.over_seeds or each.difference, p_holm=p)
        for each, p in zip(family, adjusted, strict=True)
    ]


def coverage_over_both(luck: str, experiments: int, seeds: int, generator: Random) -> float:
    """Share of experiments whose interval over seeds and test examples holds the difference in expected accuracy."""
    truth = expected_accuracy(MARGIN + 0.2, luck) - expected_accuracy(MARGIN, luck)
    inside = 0
    for _ in range(experiments):
        right = _two_arms(luck, seeds, generator, TEST_EXAMPLES)
        interval, _ = crossed_difference(right["a"] - right["b"])
        inside += interval.low <= truth <= interval.high
    return inside / experiments


def _two_arms(luck: str, seeds: int, generator: Random, examples: int) -> dict[str, Array]:
    """Return which examples are answered right, ``[seeds, examples]``, by an arm and a worse one."""
    difficulty = DIFFICULTY * generator.normal(size=examples)
    return {name: answers(MARGIN + more, luck, difficulty, seeds, generator) for name, more in (("a", 0.2), ("b", 0))}


def crossed_coverage(
    luck: str, experiments: int, seeds: int, generator: Random, examples: int = TEST_EXAMPLES
) -> tuple[float, float, float]:
    """Share of experiments whose interval holds the difference in expected accuracy.

    The intervals are that over both sources, that over seeds, and the one of a report, which reaches as far as either.
    """
    truth = expected_accuracy(MARGIN + 0.2, luck) - expected_accuracy(MARGIN, luck)
    inside = np.zeros(3)
    for _ in range(experiments):
        right = _two_arms(luck, seeds, generator, examples)
        values = {name: dict(enumerate(each.mean(axis=1).tolist())) for name, each in right.items()}
        known = {name: dict(enumerate(each)) for name, each in right.items()}
        (found,) = contrasted(values, [("a", "b")], "test_acc", known)  # type: ignore[arg-type]
        over_both, _ = crossed_difference(right["a"] - right["b"])
        assert found.over_seeds is not None
        intervals = (over_both, found.over_seeds, found.difference)
        inside += [interval.low <= truth <= interval.high for interval in intervals]
    return float(inside[0] / experiments), float(inside[1] / experiments), float(inside[2] / experiments)


# Differences with a known mean

DIFFERENCES: dict[str, tuple[Callable[[Random, tuple[int, int]], Array], float]] = {
    "normal": (lambda r, shape: r.normal(0.3, 1, shape), 0.3),
    "Student, 3 degrees": (lambda r, shape: r.standard_t(3, shape), 0.0),
    "gamma, skewness 1": (lambda r, shape: r.gamma(4, size=shape), 4.0),
    "gamma, skewness 1.4": (lambda r, shape: r.gamma(2, size=shape), 2.0),
    "lognormal, skewness 6.2": (lambda r, shape: r.lognormal(0, 1, shape), math.exp(0.5)),
    "ties: of accuracies, sd 2 examples": (
        lambda r, shape: _accuracies(r.normal(0.9 / 360, 2 / 360, shape)),
        0.9 / 360,
    ),
    "ties: of accuracies, sd 0.7 examples": (
        lambda r, shape: _accuracies(r.normal(0.5 / 360, 0.7 / 360, shape)),
        0.5 / 360,
    ),
    "ties: 9 of 10 are zero": (lambda r, shape: (r.random(shape) < 0.1) / 360, 0.1 / 360),
}
"""By name: what draws differences [experiments, seeds], and their mean."""


def interval_coverage(name: str, experiments: int, seeds: int, generator: Random) -> float:
    """Share of experiments whose 95 % interval holds the median of all Walsh averages, which is what it estimates."""
    draw, _ = DIFFERENCES[name]
    truth = pseudo_median(name)
    samples = draw(generator, (experiments, seeds))
    intervals = [paired_difference(sample, np.zeros(seeds)) for sample in samples]
    # A tie of accuracies is one value, however it was rounded.
    return float(np.mean([interval.low - 1e-9 <= truth <= interval.high + 1e-9 for interval in intervals]))


def pseudo_median(name: str) -> float:
    """The median of the mean of two differences: of a symmetric distribution its mean."""
    draw, _ = DIFFERENCES[name]
    one, other = draw(np.random.default_rng(1), (2, 400_000))
    return float(np.median((one + other) / 2))


def intervals_that_leave_the_data(draws: int, generator: Random) -> int:
    """How many intervals leave the range of the differences, or hold no zero though p is at least 0.05."""
    wrong = 0
    for _ in range(draws):
        size = int(generator.integers(6, 16))
        values = np.round(generator.gamma(0.7, 3, size) - generator.integers(0, 3)) * (generator.random(size) < 0.7)
        values = values / TEST_EXAMPLES + generator.choice([0.0, 0.3]) * generator.lognormal(0, 2, size)
        found, p = paired_difference(values, np.zeros(size)), wilcoxon_exact(values)
        holds_zero = found.low <= 0 <= found.high
        wrong += not values.min() <= found.low <= found.mean <= found.high <= values.max()
        wrong += p >= 0.05 and not holds_zero
    return wrong


def crossed_intervals_that_leave_the_data(draws: int, generator: Random) -> int:
    """How many intervals over seeds and examples end beyond the differences and zero, or contradict their p."""
    wrong = 0
    for _ in range(draws):
        shape = int(generator.integers(2, 12)), int(generator.integers(2, 40))
        values = generator.integers(-1, 2, shape) * (generator.random(shape) < generator.choice([0.1, 0.7]))
        values = values + generator.choice([0.0, 0.3]) * generator.lognormal(0, 2, (shape[0], 1))
        found, p = crossed_difference(values)
        wrong += not min(values.min(), 0) <= found.low <= found.mean <= found.high <= max(values.max(), 0)
        wrong += (p < 0.05) is (found.low <= 0 <= found.high)
    return wrong


def power(effect: float, seeds: int, contrasts: int, experiments: int, generator: Random) -> float:
    """Share of experiments that show a mean difference of `effect` standard deviations among `contrasts`.

    The other contrasts show nothing, so that Holm asks the most of this one.
    """
    samples = generator.normal(effect, 1, (experiments, seeds))
    return float(np.mean([holm([wilcoxon_exact(s)] + [1.0] * (contrasts - 1))[0] < 0.05 for s in samples]))


# Searches whose scores have a known distribution

Scores = Callable[[Random, tuple[int, ...]], Array]


def _bowl(sites: int) -> Scores:
    def draw(generator: Random, shape: tuple[int, ...]) -> Array:
        distance = generator.uniform(-0.6, 0.4, (*shape, sites)) ** 2
        return 0.1 + distance.sum(axis=-1) + generator.normal(0, 0.01, shape)

    return draw


def _plateau(generator: Random, shape: tuple[int, ...]) -> Array:
    good = 0.1 + generator.normal(0, 0.01, shape)
    return np.where(generator.random(shape) < 0.5, good, generator.uniform(0.2, 2.3, shape))


def _needle(generator: Random, shape: tuple[int, ...]) -> Array:
    rare = 0.1 + generator.gamma(2, 0.01, shape)
    return np.where(generator.random(shape) < 0.1, rare, 0.5 + generator.gamma(3, 0.1, shape))


SCORES: dict[str, Scores] = {
    "bowl of 2 sites": _bowl(2),
    "bowl of 6 sites": _bowl(6),
    "half good, half far off": _plateau,
    "one in ten is good": _needle,
    "gamma": lambda r, shape: r.gamma(2, size=shape),
    "lognormal": lambda r, shape: r.lognormal(-1, 0.7, shape),
    "uniform down to 0": lambda r, shape: r.random(shape),
}


def scored(scores: Sequence[float], states: Sequence[str] | None = None) -> list[TrialResult]:
    """Trials with these objectives."""
    return [
        TrialResult(TrialSpec("none", i, i, {}, 1e-3, 0.0), state, (EpochMetrics(0, score, score, score),), 1.0)  # type: ignore[arg-type]
        for i, (score, state) in enumerate(zip(scores, states or ["COMPLETE"] * len(scores), strict=True))
    ]


def expected_best(ordered: Array, k: int, ceiling: float = math.inf) -> float:
    """Expected best of k draws of an ordered sample so large that it stands for the distribution."""
    cut = np.minimum(ordered, ceiling)
    above = 1 - np.arange(cut.size) / cut.size
    return float(cut[0] + np.diff(cut) @ above[1:] ** k)


def budget_coverage(name: str, trials: int, experiments: int, generator: Random) -> dict[int, float]:
    """By budget, the share of random searches whose band holds the expected best."""
    draw, inside = SCORES[name], np.zeros(trials)
    everything = np.sort(draw(generator, (20_000,)))
    for experiment in range(experiments):
        scores = draw(generator, (trials,))
        budget = random_search(scored(scores), seed=experiment)
        assert budget is not None
        truth = [expected_best(everything, k, scores.max()) for k in budget.trials]
        inside += _holds(budget, truth)
    return dict(zip(range(1, trials + 1), (inside / experiments).tolist(), strict=True))


def repeats_coverage(name: str, trials: int, repeats: int, experiments: int, generator: Random) -> dict[int, float]:
    """By budget, the share of sets of searches whose band holds the expected best."""
    draw, inside = SCORES[name], np.zeros(trials)
    everything = np.sort(draw(generator, (20_000,)))
    truth = [expected_best(everything, k) for k in range(1, trials + 1)]
    for _ in range(experiments):
        budget = repeated_searches([scored(scores) for scores in draw(generator, (repeats, trials))])
        assert budget is not None
        inside += _holds(budget, truth)
    return dict(zip(range(1, trials + 1), (inside / experiments).tolist(), strict=True))


def _holds(budget: Budget, truth: Sequence[float]) -> Array:
    points = zip(truth, budget.low, budget.high, strict=True)
    return np.array([low <= value <= high for value, low, high in points], dtype=float)


# Searches whose scores are a known function of the rates

Surface = Callable[[Array], Array]
"""From rates [trials, sites] to the score without noise [trials]."""


def _quadratic(generator: Random, sites: int) -> Surface:
    best, weight = generator.uniform(0, 0.7, sites), generator.uniform(0, 1.5, sites) * (generator.random(sites) < 0.6)
    return lambda rates: (weight * (rates - best) ** 2).sum(axis=1)


def _rising(generator: Random, sites: int) -> Surface:
    weight = generator.uniform(0, 0.5, sites)
    return lambda rates: (weight * np.exp(2 * rates - 1.8)).sum(axis=1)


def _interacting(generator: Random, sites: int) -> Surface:
    best = generator.uniform(0.1, 0.5, sites)
    return lambda rates: ((rates - best) ** 2).sum(axis=1) + 0.8 * rates[:, 0] * rates[:, -1]


def _wavy(generator: Random, sites: int) -> Surface:
    phase = generator.uniform(0, 6, sites)
    return lambda rates: (0.2 * np.sin(4 * rates + phase)).sum(axis=1)


def _steep(generator: Random, sites: int) -> Surface:
    return lambda rates: (0.5 / (1 + np.exp(-15 * (rates - 0.7)))).sum(axis=1)


def _flat(generator: Random, sites: int) -> Surface:
    return lambda rates: np.zeros(len(rates))


SURFACES: dict[str, Callable[[Random, int], Surface]] = {
    "bowl": _quadratic,
    "rising": _rising,
    "interacting": _interacting,
    "wavy": _wavy,
    "steep at 0.7": _steep,
    "flat": _flat,
}
HIGH = 0.9


def drawn_rates(generator: Random, trials: int, sites: int) -> Array:
    """Rates as random search draws them: zero for a fifth of the trials."""
    return np.maximum(generator.uniform(-HIGH / 4, HIGH, (trials, sites)), 0)


def search_of(surface: Surface, rates: Array, noise: float, generator: Random) -> list[TrialResult]:
    """A random search over a surface, whose scores depend on learning rate and weight decay as well."""
    settings = generator.uniform(-1, 1, (len(rates), 2))
    scores = surface(rates) + 0.3 * (settings[:, 0] - 0.2) ** 2 + 0.1 * settings[:, 1]
    scores = scores + noise * generator.standard_t(4, len(rates)) / math.sqrt(2)
    return [
        TrialResult(
            TrialSpec(
                "dropout",
                number,
                number,
                {f"site{site}": float(rate) for site, rate in enumerate(row)},
                lr=float(np.exp(-5.8 + 2.3 * setting[0])),
                weight_decay=float(np.exp(-8 + 5.7 * setting[1])),
            ),
            "COMPLETE",
            (EpochMetrics(0, score, score, score),),
            1.0,
        )
        for number, (row, setting, score) in enumerate(zip(rates, settings, scores.tolist(), strict=True))
    ]


def response_coverage(
    name: str, trials: int, sites: int, noise: float, experiments: int, generator: Random
) -> tuple[float, float]:
    """Share of a curve's rates at which the band holds the expected score, and the band's mean width."""
    inside, widths = [], []
    for _ in range(experiments):
        surface = SURFACES[name](generator, sites)
        found = search_of(surface, drawn_rates(generator, trials, sites), noise, generator)
        (curve,) = responses(found, ["site0"], {}, {}, {}, 0.0, HIGH)
        many = drawn_rates(generator, 4000, sites)
        for rate, low, high in zip(curve.rates, curve.low, curve.high, strict=True):
            many[:, 0] = rate
            truth = float(surface(many).mean()) + 0.3 * (1 / 3 + 0.04)
            inside.append(low <= truth <= high)
            widths.append(high - low)
    return float(np.mean(inside)), float(np.mean(widths))


ALL_ARMS = tuple(ARMS)


# Confirmations: configurations that differ by `spread`, retrained on seeds of standard deviation 1

AGREEMENT = 0.7
"""Correlation of the luck of a seed in the validation loss and in the test score."""


def confirmation(
    spread: float, screening: int, experiments: int, generator: Random, seeds: int = 10, top_k: int = 3
) -> tuple[float, float, float]:
    """Confirm four arms as a run does, and compare their winners on the test set.

    Args:
        spread: Standard deviation of the true scores of an arm's configurations; with 0 all models are the same.
        screening: How many seeds choose the winner of an arm.
        experiments: Number of runs.
        generator: Random numbers.
        seeds: On how many seeds the winners are compared.
        top_k: Configurations of each arm.

    Returns:
        The share of runs in which a contrast of equal models is below 0.05, the share of intervals that hold the true
        difference, and by how much the winners are worse than the best configurations, in seed deviations.
    """
    wrong = 0
    covered: list[bool] = []
    regret: list[float] = []
    for _ in range(experiments):
        truth = spread * generator.normal(size=(len(FOUR_ARMS), top_k, 1))
        shape = (len(FOUR_ARMS), top_k, seeds)
        val_luck = generator.normal(size=shape)
        test_luck = AGREEMENT * val_luck + math.sqrt(1 - AGREEMENT**2) * generator.normal(size=shape)
        chosen = np.argmin((truth + val_luck)[..., :screening].mean(-1), axis=1)
        arms = np.arange(len(FOUR_ARMS))
        won, tested = truth[arms, chosen, 0], (truth + test_luck)[arms, chosen]
        regret.append(float((won - truth.min(axis=(1, 2))).mean()))
        false = 0
        values = {arm: dict(enumerate(tested[n].tolist())) for n, arm in enumerate(FOUR_ARMS)}
        for each in contrasts_of(values, "test_loss"):
            real = won[FOUR_ARMS.index(each.a)] - won[FOUR_ARMS.index(each.b)]
            covered.append(bool(each.difference.low - 1e-12 <= real <= each.difference.high + 1e-12))
            false += bool(real == 0 and each.p_holm < 0.05)
        wrong += false > 0
    return wrong / experiments, float(np.mean(covered)), float(np.mean(regret))
